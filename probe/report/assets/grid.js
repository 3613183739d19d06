/* Layer × head grid. Filled: scores. Dot: scores and is predicted. Ring: predicted only. Corner: static set. Frame: pinned. */

class Grid {
  constructor(canvas, onPin, onMove) {
    this.canvas = canvas;
    this.cursor = 0;
    canvas.addEventListener("click", (event) => {
      const head = this.headAt(event);
      if (head < 0) return;
      this.cursor = head;
      onPin(head);
    });
    canvas.addEventListener("keydown", (event) => this.key(event, onPin, onMove));
    canvas.addEventListener("focus", () => onMove(this.cursor));
    canvas.addEventListener("blur", () => onMove(-1));
  }

  setStore(store) {
    this.layers = store.layers;
    this.heads = store.heads;
    this.cursor = Math.min(this.cursor, this.layers * this.heads - 1);
    this.staticHeads = new Set(store.static);
    this.resize();
  }

  resize() {
    const room = Math.max(240, this.canvas.parentElement.clientWidth) - 34;
    this.across = Math.max(5, Math.min(40, Math.floor(room / this.heads)));
    this.down = Math.max(8, Math.min(20, Math.floor(460 / this.layers)));
    this.context = sharp(this.canvas, 30 + this.across * this.heads, 20 + this.down * this.layers);
  }

  headAt(event) {
    const box = this.canvas.getBoundingClientRect();
    const head = Math.floor((event.clientX - box.left - 30) / this.across);
    const layer = Math.floor((event.clientY - box.top - 20) / this.down);
    const inside = head >= 0 && head < this.heads && layer >= 0 && layer < this.layers;
    return inside ? layer * this.heads + head : -1;
  }

  key(event, onPin, onMove) {
    const moves = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -this.heads, ArrowDown: this.heads };
    if (event.key in moves) {
      const next = this.cursor + moves[event.key];
      if (next >= 0 && next < this.layers * this.heads) this.cursor = next;
      onMove(this.cursor);
    } else if (event.key === "Enter") onPin(this.cursor);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  /** Draw a step. `values`, the reasoning scores, shade heads below the threshold. */
  draw({ scoring, predicted, values, pins, focused }) {
    const { context, across, down } = this;
    const ink = Object.fromEntries(["--cell", "--hot", "--cold", "--soft", "--panel", "--c2", "--ink"].map((n) => [n, colour(n)]));
    context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    this.labels(ink["--soft"]);
    for (let head = 0; head < this.layers * this.heads; head++) {
      const x = 30 + (head % this.heads) * across, y = 20 + Math.floor(head / this.heads) * down;
      const w = across - 2, h = down - 2;
      context.fillStyle = scoring[head] ? ink["--hot"] : ink["--cell"];
      context.fillRect(x, y, w, h);
      if (!scoring[head] && values && values[head] !== NO_SCORE && values[head] > 12) {
        context.fillStyle = ink["--cold"];
        context.fillRect(x, y + h * (1 - values[head] / 254), w, (h * values[head]) / 254);
      }
      if (predicted && predicted[head]) this.dot(x + w / 2, y + h / 2, Math.min(w, h), scoring[head], ink);
      if (this.staticHeads.has(head)) this.corner(x, y + h, Math.min(w, h) * 0.45, scoring[head] ? ink["--panel"] : ink["--soft"]);
      if (pins.has(head)) this.frame(x, y, w, h, ink["--ink"], []);
      if (focused && head === this.cursor) this.frame(x - 1, y - 1, w + 2, h + 2, ink["--c2"], [3, 2]);
    }
  }

  labels(ink) {
    const { context } = this;
    context.fillStyle = ink;
    context.font = "10px system-ui, sans-serif";
    context.textBaseline = "middle";
    context.textAlign = "right";
    const layerEvery = Math.ceil(14 / this.down), headEvery = Math.ceil(18 / this.across);
    for (let layer = 0; layer < this.layers; layer += layerEvery)
      context.fillText(layer, 24, 20 + (layer + 0.5) * this.down - 1);
    context.textAlign = "center";
    for (let head = 0; head < this.heads; head += headEvery) context.fillText(head, 30 + (head + 0.5) * this.across - 1, 10);
  }

  dot(x, y, size, filled, ink) {
    const { context } = this;
    context.beginPath();
    context.arc(x, y, size * (filled ? 0.2 : 0.3), 0, 7);
    context.lineWidth = Math.max(1.5, size * 0.11);
    context.fillStyle = ink["--panel"];
    context.strokeStyle = ink["--c2"];
    if (filled) context.fill();
    else context.stroke();
  }

  corner(x, y, size, ink) {
    const { context } = this;
    context.beginPath();
    context.moveTo(x, y);
    context.lineTo(x + size, y);
    context.lineTo(x, y - size);
    context.fillStyle = ink;
    context.fill();
  }

  frame(x, y, w, h, ink, dash) {
    const { context } = this;
    context.setLineDash(dash);
    context.lineWidth = 2;
    context.strokeStyle = ink;
    context.strokeRect(x, y, w, h);
    context.setLineDash([]);
  }
}
