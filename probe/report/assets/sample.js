/* A sample of a store: tokens, and what every head did at every step. */

const ARRAYS = { uint8: Uint8Array, uint16: Uint16Array };
const NOWHERE = 65535;
const UNKNOWN = 255;

class Sample {
  constructor(buffer, store) {
    const size = new DataView(buffer).getUint32(0, true);
    const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, size)));
    Object.assign(this, header);
    this.heads = store.layers * store.heads;
    this.steps = this.tokens.length - this.prompt;
    this.columns = {};
    for (const [name, { type, start, length }] of Object.entries(header.arrays))
      this.columns[name] = new ARRAYS[type](buffer, 4 + size + start, length);
  }

  has(name) {
    return name in this.columns;
  }

  /** The values of all heads at a step, or null. */
  row(name, step) {
    const column = this.columns[name];
    return column ? column.subarray(step * this.heads, (step + 1) * this.heads) : null;
  }

  /** Numbers of the heads that are marked at a step. */
  marked(name, step) {
    const row = this.row(name, step);
    const found = [];
    if (row) row.forEach((mark, head) => mark && found.push(head));
    return found;
  }

  /** Where a head looks at a step: a position in prompt and answer, or -1. */
  look(head, step) {
    const row = this.row("looks", step);
    return !row || row[head] === NOWHERE ? -1 : row[head];
  }

  isEvidence(position) {
    return this.evidence.some(([start, end]) => start <= position && position < end);
  }

  /** The step at which most heads are marked. */
  busiest(name) {
    let best = 0, most = -1;
    for (let step = 0; step < this.steps; step++) {
      const count = this.marked(name, step).length;
      if (count > most) [best, most] = [step, count];
    }
    return best;
  }

  /** Heads that stay, come and go at each step, against the step before. */
  turnover(name) {
    const column = this.columns[name];
    const stay = new Uint16Array(this.steps), came = new Uint16Array(this.steps), went = new Uint16Array(this.steps);
    for (let step = 0; step < this.steps; step++) {
      for (let head = 0; head < this.heads; head++) {
        const now = column[step * this.heads + head];
        const before = step ? column[(step - 1) * this.heads + head] : 0;
        if (now && before) stay[step]++;
        else if (now) came[step]++;
        else if (before) went[step]++;
      }
    }
    return { stay, came, went };
  }
}

async function loadSample(store, number, place) {
  return new Sample(await inflate(`sample-${number}-${place}`), store);
}

/** A token's text with its spaces and breaks shown. */
function visible(text) {
  return text.replaceAll("\n", "↵").replaceAll("\t", "⇥").replace(/^ | $/g, "␣") || "∅";
}
