/* Pinned heads over all steps. Full bar: the head scores. Low bar: it attends most to evidence without scoring. Ring or dot: predicted. */

class Tracks {
  constructor(box, none, onUnpin, onStep) {
    Object.assign(this, { box, none, onUnpin, onStep });
    this.rows = new Map();
  }

  setPins(pins, sample, score, name) {
    Object.assign(this, { sample, score, name });
    this.rows.clear();
    this.none.hidden = pins.size > 0;
    this.box.replaceChildren(...[...pins].map((head) => this.row(head)));
    this.draw();
  }

  row(head) {
    const label = `Unpin head ${this.name(head)}`;
    const off = make("button", { type: "button", textContent: `${this.name(head)} ×`, ariaLabel: label });
    off.addEventListener("click", () => this.onUnpin(head));
    const canvas = make("canvas");
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `Head ${this.name(head)} scores at ${this.scoringSteps(head)} of ${this.sample.steps} steps`);
    canvas.addEventListener("click", (event) => {
      const box = canvas.getBoundingClientRect();
      this.onStep(Math.floor(((event.clientX - box.left) / box.width) * this.sample.steps));
    });
    const cursor = make("div", { className: "cursor", ariaHidden: "true" });
    const status = make("span", { className: "status" });
    this.rows.set(head, { canvas, cursor, status });
    return make("div", { className: "track" }, off, make("div", { className: "strip-box" }, canvas, cursor), status);
  }

  scoringSteps(head) {
    let count = 0;
    for (let step = 0; step < this.sample.steps; step++) count += this.sample.row(`scoring_${this.score}`, step)[head];
    return count;
  }

  draw() {
    const { sample, score } = this;
    for (const [head, { canvas }] of this.rows) {
      const width = canvas.parentElement.clientWidth, height = 26;
      const context = sharp(canvas, width, height), slot = width / sample.steps, bar = Math.max(1, slot - 1.5);
      context.fillStyle = colour("--cell");
      context.fillRect(0, 0, width, height);
      for (let step = 0; step < sample.steps; step++) {
        const scores = sample.row(`scoring_${score}`, step)[head];
        const predicted = sample.row(`predicted_${score}`, step)?.[head];
        context.fillStyle = scores ? colour("--hot") : colour("--cold");
        if (scores) context.fillRect(step * slot, 0, bar, height);
        else if (sample.isEvidence(sample.argmax(head, step))) context.fillRect(step * slot, height - 7, bar, 7);
        if (!predicted) continue;
        context.beginPath();
        context.arc(step * slot + bar / 2, height / 2, Math.max(1.5, Math.min(4, bar / 3)), 0, 7);
        context.lineWidth = 1.5;
        context.fillStyle = colour("--panel");
        context.strokeStyle = colour("--c2");
        if (scores) context.fill();
        else context.stroke();
      }
    }
  }

  show(step) {
    const { sample } = this;
    for (const [head, { cursor, status }] of this.rows) {
      cursor.style.left = `${(100 * step) / sample.steps}%`;
      cursor.style.width = `${100 / sample.steps}%`;
      const position = sample.argmax(head, step);
      const scores = sample.row(`scoring_${this.score}`, step)[head] ? "scores" : "no score";
      const evidence = sample.isEvidence(position) ? " (evidence)" : "";
      status.textContent = position < 0 ? scores : `${scores}; argmax “${visible(sample.tokens[position])}”${evidence}`;
    }
  }
}
