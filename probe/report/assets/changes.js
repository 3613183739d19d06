/* Scoring heads at each step against the step before: retained and added above the line, dropped below it. */

class Changes {
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

  setChanges(changes) {
    this.changes = changes;
    this.steps = changes.retained.length;
    this.draw();
  }

  draw() {
    const width = this.canvas.parentElement.clientWidth, height = 76;
    const context = sharp(this.canvas, width, height);
    const { retained, added, dropped } = this.changes;
    const up = Math.max(1, ...retained.map((count, step) => count + added[step])), down = Math.max(1, ...dropped);
    const unit = (height - 6) / (up + down), zero = 3 + up * unit, slot = width / this.steps;
    const bar = Math.max(1, slot - Math.min(3, slot * 0.25));
    for (let step = 0; step < this.steps; step++) {
      const x = step * slot + (slot - bar) / 2;
      context.fillStyle = colour("--cold");
      context.fillRect(x, zero - retained[step] * unit, bar, retained[step] * unit);
      context.fillStyle = colour("--hot");
      context.fillRect(x, zero - (retained[step] + added[step]) * unit, bar, added[step] * unit);
      context.strokeStyle = colour("--c2");
      context.lineWidth = 1.5;
      if (dropped[step]) context.strokeRect(x + 0.75, zero + 2, Math.max(1, bar - 1.5), Math.max(1, dropped[step] * unit - 2));
    }
    context.fillStyle = colour("--soft");
    context.fillRect(0, zero, width, 1);
  }

  show(step) {
    this.cursor.style.left = `${(100 * step) / this.steps}%`;
    this.cursor.style.width = `${100 / this.steps}%`;
  }
}
