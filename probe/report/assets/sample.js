/* A sample of a score store: its tokens, and scores, predictions and argmax positions of all heads at all steps. */

const ARRAYS = { uint8: Uint8Array, uint16: Uint16Array };
const NO_POSITION = 65535;
const NO_SCORE = 255;

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

  /** Heads for which a 0/1 array is set at a step: those that score, or those that are predicted. */
  marked(name, step) {
    const found = [];
    this.row(name, step)?.forEach((mark, head) => mark && found.push(head));
    return found;
  }

  /** The most attended position of a head at a step, in prompt and answer; -1 where it was not recorded. */
  argmax(head, step) {
    const row = this.row("argmax", step);
    return !row || row[head] === NO_POSITION ? -1 : row[head];
  }

  isEvidence(position) {
    return this.evidence.some(([start, end]) => start <= position && position < end);
  }

  /** The first step with the most marked heads. */
  busiest(name) {
    let best = 0, most = -1;
    for (let step = 0; step < this.steps; step++) {
      const count = this.marked(name, step).length;
      if (count > most) [best, most] = [step, count];
    }
    return best;
  }

  /** Numbers of heads that are retained, added and dropped at each step, against the step before. */
  changes(name) {
    const column = this.columns[name];
    const [retained, added, dropped] = [0, 1, 2].map(() => new Uint16Array(this.steps));
    for (let step = 0; step < this.steps; step++) {
      for (let head = 0; head < this.heads; head++) {
        const now = column[step * this.heads + head];
        const before = step ? column[(step - 1) * this.heads + head] : 0;
        if (now && before) retained[step]++;
        else if (now) added[step]++;
        else if (before) dropped[step]++;
      }
    }
    return { retained, added, dropped };
  }
}

async function loadSample(store, storeIndex, sampleIndex) {
  return new Sample(await inflate(`sample-${storeIndex}-${sampleIndex}`), store);
}

/** A token's text with white space made visible. */
function visible(text) {
  return text.replaceAll("\n", "↵").replaceAll("\t", "⇥").replace(/^ | $/g, "␣") || "∅";
}
