/* The explorer: one state, from which every part is drawn. */

const MOST_LISTED = 40;

class Explorer {
  constructor(stores) {
    this.stores = stores;
    this.state = { store: 0, place: 0, step: 0, score: stores[0].target, lookers: "scoring", pins: new Set(), focused: false };
    this.at = (id) => document.getElementById(id);
    this.grid = new Grid(this.at("grid"), (head) => this.togglePin(head), (head) => this.focusHead(head));
    this.prompt = new Prompt(this.at("prompt"), this.at("answer"), (step) => this.go(step));
    this.strip = new Strip(this.at("strip"), this.at("strip-cursor"), (step) => this.go(step));
    this.tracks = new Tracks(this.at("tracks"), this.at("tracks-none"), (head) => this.togglePin(head), (step) => this.go(step));
    this.listen();
  }

  get store() {
    return this.stores[this.state.store];
  }

  name(head) {
    return `${Math.floor(head / this.store.heads)}-${head % this.store.heads}`;
  }

  listen() {
    const { at } = this;
    at("pick-store").addEventListener("change", (event) => this.openStore(Number(event.target.value)));
    at("pick-sample").addEventListener("change", (event) => this.openSample(Number(event.target.value)));
    at("pick-score").addEventListener("change", (event) => this.setScore(event.target.value));
    at("step").addEventListener("input", (event) => this.go(Number(event.target.value)));
    at("step-back").addEventListener("click", () => this.go(this.state.step - 1));
    at("step-on").addEventListener("click", () => this.go(this.state.step + 1));
    at("play").addEventListener("click", () => this.play(!this.timer));
    at("speed").addEventListener("change", () => this.timer && this.play(true));
    at("keep-in-view").addEventListener("change", () => this.draw());
    at("copy-link").addEventListener("click", (event) => this.copyLink(event.target));
    at("heads").addEventListener("click", (event) => event.target.dataset.head && this.togglePin(Number(event.target.dataset.head)));
    for (const input of document.getElementsByName("lookers"))
      input.addEventListener("change", () => { this.state.lookers = input.value; this.draw(); });
    at("explorer-panel").addEventListener("keydown", (event) => this.key(event));
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
    this.at("pick-store").value = number;
    const lines = store.samples.map((line, place) => {
      const right = line.right === null || line.right === undefined ? "" : line.right ? " · right" : " · wrong";
      return make("option", { value: place, textContent: `${line.sample}: ${line.prompt} + ${line.steps} tokens${right} · ${line.question}` });
    });
    this.at("pick-sample").replaceChildren(...lines);
    this.at("store-note").textContent =
      `${store.llm}; store ${store.fingerprint.slice(0, 12)}. ` +
      (store.unseen ? "The samples are held out from training. " : "These samples may have been training samples of the probe. ") +
      (store.static.length ? `Static: the top ${store.static.length} heads of the training samples by mean score.` : "");
    this.grid.setStore(store);
    for (const head of (wanted.pin || "").split(",").filter(Boolean).map(Number))
      if (head < store.layers * store.heads) this.state.pins.add(head);
    await this.openSample(Number(wanted.place || 0), wanted.step === undefined ? null : Number(wanted.step) || 0);
  }

  /** A sample, at a step or at the one with most heads. */
  async openSample(place, step = null) {
    this.play(false);
    this.state.place = Math.max(0, Math.min(place, this.store.samples.length - 1));
    this.at("pick-sample").value = this.state.place;
    this.sample = await loadSample(this.store, this.state.store, this.state.place);
    this.at("step").max = this.sample.steps - 1;
    this.at("asked-question").textContent = this.sample.question || "";
    const figures = Object.entries(this.sample.metrics).map(([name, value]) => `${name} ${Number(value).toFixed(2)}`);
    this.at("asked-answer").textContent = [`wanted: ${this.sample.gold}`, `answered: ${this.sample.answer}`, ...figures].join(" · ");
    this.prompt.setSample(this.sample);
    const first = step ?? this.sample.busiest(`scoring_${this.state.score}`);
    this.state.step = Math.max(0, Math.min(first, this.sample.steps - 1));
    this.setScore(this.state.score);
  }

  setScore(score) {
    this.state.score = score;
    this.at("pick-score").value = score;
    const predicts = this.sample.has(`predicted_${score}`);
    this.at("lookers-predicted").hidden = !predicts;
    if (!predicts && this.state.lookers === "predicted") this.state.lookers = "scoring";
    for (const input of document.getElementsByName("lookers")) input.checked = input.value === this.state.lookers;
    this.turnover = this.sample.turnover(`scoring_${score}`);
    this.strip.setTurnover(this.turnover);
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
      }, 1000 / Number(this.at("speed").value));
    }
    this.at("play").textContent = on ? "❚❚ pause" : "▶ play";
    this.at("play").setAttribute("aria-pressed", String(Boolean(on)));
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
    this.prompt.show(step, this.looks(), this.at("keep-in-view").checked);
    this.strip.show(step);
    this.tracks.show(step);
    this.say(sample.marked(`scoring_${score}`, step), predicted ? sample.marked(`predicted_${score}`, step) : null);
    this.at("step").value = step;
    const token = visible(sample.tokens[sample.prompt + step]);
    this.at("step-text").textContent = `${step + 1} of ${sample.steps}: ${token}`;
    this.at("step").setAttribute("aria-valuetext", `step ${step + 1} of ${sample.steps}, token ${token}`);
    writePlace("explorer", this.link());
  }

  /** How many of the chosen heads look at each position. */
  looks() {
    const { sample, state } = this;
    const chosen = state.lookers === "pinned" ? [...state.pins] : sample.marked(`${state.lookers}_${state.score}`, state.step);
    const counts = new Map();
    for (const head of chosen) {
      const position = sample.look(head, state.step);
      if (position >= 0) counts.set(position, (counts.get(position) || 0) + 1);
    }
    return counts;
  }

  say(scoring, predicted) {
    const { state } = this, { stay, came, went } = this.turnover;
    const hits = predicted?.filter((head) => scoring.includes(head)).length;
    const foretold = predicted ? ` ${predicted.length} predicted, ${hits} of them right.` : "";
    const at = state.focused ? ` Cursor on head ${this.name(this.grid.cursor)}${scoring.includes(this.grid.cursor) ? ", which scores" : ""}.` : "";
    this.at("grid-text").textContent = `${scoring.length} ${scoring.length === 1 ? "head scores" : "heads score"}.${foretold}${at}`;
    const t = state.step, union = stay[t] + came[t] + went[t];
    const jaccard = t && union ? `, Jaccard ${(stay[t] / union).toFixed(2)}` : "";
    this.at("turnover-text").textContent = `now: ${stay[t]} stay, ${came[t]} come, ${went[t]} go${jaccard}`;
    this.listHeads(scoring);
  }

  /** The scoring heads as buttons; those shown already stay, so that the keyboard's focus does. */
  listHeads(scoring) {
    const box = this.at("heads"), wanted = scoring.slice(0, MOST_LISTED);
    const former = new Map([...box.querySelectorAll("button")].map((button) => [Number(button.dataset.head), button]));
    const buttons = wanted.map((head) => {
      const button = former.get(head) || make("button", { type: "button" });
      button.textContent = this.name(head);
      button.dataset.head = head;
      button.ariaPressed = String(this.state.pins.has(head));
      return button;
    });
    const more = scoring.length - wanted.length;
    box.replaceChildren(...buttons, ...(more ? [`and ${more} more`] : []));
  }

  link() {
    const { store, place, step, score, lookers, pins } = this.state;
    return { store, place, step, score, lookers, ...(pins.size ? { pin: [...pins].join(",") } : {}) };
  }

  restore() {
    const wanted = readPlace("explorer");
    if (!wanted) return this.openStore(0);
    if (["scoring", "predicted", "pinned"].includes(wanted.lookers)) this.state.lookers = wanted.lookers;
    this.at("explorer").scrollIntoView();
    const known = ["copy_paste", "reasoning"].includes(wanted.score);
    return this.openStore(Math.min(Number(wanted.store) || 0, this.stores.length - 1), { ...wanted, score: known ? wanted.score : "" });
  }

  async copyLink(button) {
    await copyText(location.href.split("#")[0] + placeOf("explorer", this.link()), button);
  }
}
