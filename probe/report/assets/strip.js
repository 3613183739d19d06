/* Turnover from step to step: heads that stay and come above the line, heads that go below it. */

class Strip {
  constructor(canvas, cursor, onStep) {
    this.canvas = canvas;
    this.cursor = cursor;
    let pressed = false;
    const go = (event) => {
      const box = canvas.getBoundingClientRect();
      const step = Math.floor(((event.clientX - box.left) / box.width) * this.steps);
      onStep(Math.max(0, Math.min(this.steps - 1, step)));
    };
    canvas.addEventListener("pointerdown", (event) => { pressed = true; canvas.setPointerCapture(event.pointerId); go(event); });
    canvas.addEventListener("pointermove", (event) => pressed && go(event));
    canvas.addEventListener("pointerup", () => { pressed = false; });
  }

  setTurnover(turnover) {
    this.turnover = turnover;
    this.steps = turnover.stay.length;
    this.draw();
  }

  draw() {
    const width = this.canvas.parentElement.clientWidth, height = 76;
    const context = sharp(this.canvas, width, height);
    const { stay, came, went } = this.turnover;
    const up = Math.max(1, ...stay.map((count, step) => count + came[step])), down = Math.max(1, ...went);
    const unit = (height - 6) / (up + down), zero = 3 + up * unit, slot = width / this.steps;
    const bar = Math.max(1, slot - Math.min(3, slot * 0.25));
    for (let step = 0; step < this.steps; step++) {
      const x = step * slot + (slot - bar) / 2;
      context.fillStyle = colour("--cold");
      context.fillRect(x, zero - stay[step] * unit, bar, stay[step] * unit);
      context.fillStyle = colour("--hot");
      context.fillRect(x, zero - (stay[step] + came[step]) * unit, bar, came[step] * unit);
      context.strokeStyle = colour("--c2");
      context.lineWidth = 1.5;
      if (went[step]) context.strokeRect(x + 0.75, zero + 2, Math.max(1, bar - 1.5), Math.max(1, went[step] * unit - 2));
    }
    context.fillStyle = colour("--soft");
    context.fillRect(0, zero, width, 1);
  }

  show(step) {
    this.cursor.style.left = `${(100 * step) / this.steps}%`;
    this.cursor.style.width = `${100 / this.steps}%`;
  }
}
