/* The explorer of heads over time: one state, from which every part is drawn. */

const MOST_LISTED = 40;
const ATTENDING = ["scoring", "predicted", "pinned"];

class Explorer {
  constructor(stores) {
    this.stores = stores;
    this.state = { store: 0, sample: 0, step: 0, score: stores[0].target, attending: "scoring", pins: new Set(), focused: false };
    this.node = (id) => document.getElementById(id);
    const pin = (head) => this.togglePin(head), go = (step) => this.go(step);
    this.grid = new Grid(this.node("grid"), pin, (head) => this.focusHead(head));
    this.prompt = new Prompt(this.node("prompt"), this.node("answer"), go);
    this.strip = new Changes(this.node("strip"), this.node("strip-cursor"), go);
    this.tracks = new Tracks(this.node("tracks"), this.node("tracks-none"), pin, go);
    this.listen();
  }

  get store() {
    return this.stores[this.state.store];
  }

  /** `layer-head` of a layer-major number. */
  name(head) {
    return `${Math.floor(head / this.store.heads)}-${head % this.store.heads}`;
  }

  listen() {
    const { node } = this;
    node("pick-store").addEventListener("change", (event) => this.openStore(Number(event.target.value)));
    node("pick-sample").addEventListener("change", (event) => this.openSample(Number(event.target.value)));
    node("pick-score").addEventListener("change", (event) => this.setScore(event.target.value));
    node("step").addEventListener("input", (event) => this.go(Number(event.target.value)));
    node("step-back").addEventListener("click", () => this.go(this.state.step - 1));
    node("step-forward").addEventListener("click", () => this.go(this.state.step + 1));
    node("play").addEventListener("click", () => this.play(!this.timer));
    node("speed").addEventListener("change", () => this.timer && this.play(true));
    node("keep-in-view").addEventListener("change", () => this.draw());
    node("copy-link").addEventListener("click", (event) => this.copyLink(event.target));
    node("heads").addEventListener("click", (event) => event.target.dataset.head && this.togglePin(Number(event.target.dataset.head)));
    for (const input of document.getElementsByName("attending"))
      input.addEventListener("change", () => { this.state.attending = input.value; this.draw(); });
    node("explorer-panel").addEventListener("keydown", (event) => this.key(event));
    addEventListener("resize", () => this.redraw());
    onSchemeChange(() => this.redraw());
  }

  key(event) {
    const typing = ["INPUT", "SELECT"].includes(event.target.tagName);
    const steps = { ArrowLeft: this.state.step - 1, ArrowRight: this.state.step + 1, Home: 0, End: this.sample.steps - 1 };
    if (!typing && event.key in steps) this.go(steps[event.key]);
    else if (event.key === " " && event.target.tagName !== "BUTTON" && !typing) this.play(!this.timer);
    else return;
    event.preventDefault();
  }

  async openStore(number, wanted = {}) {
    const store = this.stores[number];
    Object.assign(this.state, { store: number, pins: new Set(), score: wanted.score || store.target });
    this.node("pick-store").value = number;
    const lines = store.samples.map((line, index) => {
      const right = line.right === null || line.right === undefined ? "" : line.right ? " · correct" : " · wrong";
      return make("option", { value: index, textContent: `${line.sample}: ${line.prompt} + ${line.steps} tokens${right} · ${line.question}` });
    });
    const group = make("optgroup", { label: `${store.task} · ${store.model}` });
    group.append(...lines);
    this.node("pick-sample").replaceChildren(group);
    this.node("store-note").textContent =
      `${store.llm}; store ${store.fingerprint.slice(0, 12)}. ` +
      (store.held_out ? "The samples are held out from training. " : "These samples may have been training samples of the probe. ") +
      (store.static.length ? `Static: the top ${store.static.length} heads by mean score over the training samples.` : "");
    this.grid.setStore(store);
    for (const head of (wanted.pin || "").split(",").filter(Boolean).map(Number))
      if (head < store.layers * store.heads) this.state.pins.add(head);
    await this.openSample(Number(wanted.sample || 0), wanted.step === undefined ? null : Number(wanted.step) || 0);
  }

  /** Open a sample at a step; by default at the one with the most scoring heads. */
  async openSample(index, step = null) {
    this.play(false);
    this.state.sample = Math.max(0, Math.min(index, this.store.samples.length - 1));
    this.node("pick-sample").value = this.state.sample;
    this.sample = await loadSample(this.store, this.state.store, this.state.sample);
    const { question, gold, answer, metrics, steps } = this.sample;
    this.node("step").max = steps - 1;
    this.node("sample-question").textContent = question || "";
    const values = Object.entries(metrics).map(([name, value]) => `${name} ${Number(value).toFixed(2)}`);
    this.node("sample-answer").textContent = [`gold: ${gold}`, `answer: ${answer}`, ...values].join(" · ");
    this.prompt.setSample(this.sample);
    const first = step ?? this.sample.busiest(`scoring_${this.state.score}`);
    this.state.step = Math.max(0, Math.min(first, steps - 1));
    this.setScore(this.state.score);
  }

  setScore(score) {
    this.state.score = score;
    this.node("pick-score").value = score;
    const predicts = this.sample.has(`predicted_${score}`);
    this.node("attending-predicted").hidden = !predicts;
    if (!predicts && this.state.attending === "predicted") this.state.attending = "scoring";
    for (const input of document.getElementsByName("attending")) input.checked = input.value === this.state.attending;
    this.changes = this.sample.changes(`scoring_${score}`);
    this.strip.setChanges(this.changes);
    this.setPins();
  }

  togglePin(head) {
    const { pins } = this.state;
    if (!pins.delete(head)) pins.add(head);
    this.setPins();
  }

  setPins() {
    this.tracks.setPins(this.state.pins, this.sample, this.state.score, (head) => this.name(head));
    this.draw();
  }

  focusHead(head) {
    this.state.focused = head >= 0;
    this.draw();
  }

  go(step) {
    const next = Math.max(0, Math.min(step, this.sample.steps - 1));
    if (next === this.state.step) return;
    this.state.step = next;
    this.draw();
  }

  play(on) {
    clearInterval(this.timer);
    this.timer = 0;
    if (on) {
      if (this.state.step === this.sample.steps - 1) this.go(0);
      this.timer = setInterval(() => {
        if (this.state.step === this.sample.steps - 1) this.play(false);
        else this.go(this.state.step + 1);
      }, 1000 / Number(this.node("speed").value));
    }
    this.node("play").textContent = on ? "❚❚ pause" : "▶ play";
    this.node("play").setAttribute("aria-pressed", String(Boolean(on)));
  }

  redraw() {
    if (!this.sample) return;
    this.grid.resize();
    this.strip.draw();
    this.tracks.draw();
    this.draw();
  }

  /** Everything that depends on the step. */
  draw() {
    const { sample, state } = this, { step, score, pins } = state;
    const scoring = sample.row(`scoring_${score}`, step), predicted = sample.row(`predicted_${score}`, step);
    const values = score === "reasoning" ? sample.row("value_reasoning", step) : null;
    this.grid.draw({ scoring, predicted, values, pins, focused: state.focused });
    this.prompt.show(step, this.attendedPositions(), this.node("keep-in-view").checked);
    this.strip.show(step);
    this.tracks.show(step);
    this.describe(sample.marked(`scoring_${score}`, step), predicted ? sample.marked(`predicted_${score}`, step) : null);
    this.node("step").value = step;
    const token = visible(sample.tokens[sample.prompt + step]);
    this.node("step-text").textContent = `${step + 1} of ${sample.steps}: ${token}`;
    this.node("step").setAttribute("aria-valuetext", `step ${step + 1} of ${sample.steps}, token ${token}`);
    writeLink("explorer", this.link());
  }

  /** The number of chosen heads by their argmax position. */
  attendedPositions() {
    const { sample, state } = this;
    const heads = state.attending === "pinned" ? [...state.pins] : sample.marked(`${state.attending}_${state.score}`, state.step);
    const counts = new Map();
    for (const head of heads) {
      const position = sample.argmax(head, state.step);
      if (position >= 0) counts.set(position, (counts.get(position) || 0) + 1);
    }
    return counts;
  }

  /** The step in words: scoring and predicted heads, and what changed since the step before. */
  describe(scoring, predicted) {
    const { state, grid } = this, { retained, added, dropped } = this.changes;
    const correct = predicted?.filter((head) => scoring.includes(head)).length;
    const prediction = predicted ? `; ${predicted.length} predicted, ${correct} of them correctly` : "";
    const cursor = state.focused ? ` Cursor on head ${this.name(grid.cursor)}${scoring.includes(grid.cursor) ? ", which scores" : ""}.` : "";
    this.node("grid-text").textContent = `${scoring.length} ${scoring.length === 1 ? "head scores" : "heads score"}${prediction}.${cursor}`;
    const t = state.step, union = retained[t] + added[t] + dropped[t];
    const jaccard = t && union ? `, Jaccard ${(retained[t] / union).toFixed(2)}` : "";
    this.node("changes-text").textContent = `this step: ${retained[t]} retained, ${added[t]} added, ${dropped[t]} dropped${jaccard}`;
    this.listHeads(scoring);
  }

  /** The scoring heads as buttons; nodes of heads already listed are reused, so that the keyboard focus stays. */
  listHeads(scoring) {
    const box = this.node("heads"), listed = scoring.slice(0, MOST_LISTED);
    const former = new Map([...box.querySelectorAll("button")].map((button) => [Number(button.dataset.head), button]));
    const buttons = listed.map((head) => {
      const button = former.get(head) || make("button", { type: "button" });
      button.textContent = this.name(head);
      button.dataset.head = head;
      button.ariaPressed = String(this.state.pins.has(head));
      return button;
    });
    const more = scoring.length - listed.length;
    box.replaceChildren(...buttons, ...(more ? [`and ${more} more`] : []));
  }

  link() {
    const { store, sample, step, score, attending, pins } = this.state;
    return { store, sample, step, score, attending, ...(pins.size ? { pin: [...pins].join(",") } : {}) };
  }

  restore() {
    const wanted = readLink("explorer");
    if (!wanted) return this.openStore(0);
    if (ATTENDING.includes(wanted.attending)) this.state.attending = wanted.attending;
    this.node("explorer").scrollIntoView();
    const known = ["copy_paste", "reasoning"].includes(wanted.score);
    return this.openStore(Math.min(Number(wanted.store) || 0, this.stores.length - 1), { ...wanted, score: known ? wanted.score : "" });
  }

  async copyLink(button) {
    await copyText(location.href.split("#")[0] + linkOf("explorer", this.link()), button);
  }
}
