/* Masked dynamic RAG: what was visible, how uncertain the draft was, and what was written instead. */

class Rag {
  constructor(questions) {
    this.questions = questions;
    this.at = (id) => document.getElementById(`rag-${id}`);
    const several = new Set(questions.map((one) => one.run)).size > 1;
    const lines = questions.map((one, place) =>
      make("option", { value: place, textContent: several ? `${one.question} · ${one.run}` : one.question }));
    this.at("question").replaceChildren(...lines);
    this.at("question").addEventListener("change", (event) => this.openQuestion(Number(event.target.value)));
    this.at("arm").addEventListener("change", (event) => this.openArm(Number(event.target.value)));
    this.at("round").addEventListener("input", (event) => this.go(Number(event.target.value)));
    this.at("back").addEventListener("click", () => this.go(this.round - 1));
    this.at("on").addEventListener("click", () => this.go(this.round + 1));
    this.openQuestion(0);
  }

  openQuestion(place) {
    this.question = this.questions[place];
    const { question, gold, arms } = this.question;
    this.at("asked").textContent = question;
    this.at("gold").textContent = `wanted: ${gold}`;
    this.at("arm").replaceChildren(
      ...arms.map(({ strategy, metrics }, number) => {
        const text = `${strategy}: ${metrics.em ? "right" : "wrong"}, F1 ${Number(metrics.f1).toFixed(2)}`;
        return make("option", { value: number, textContent: text });
      }),
    );
    this.openArm(0);
  }

  openArm(number) {
    this.arm = this.question.arms[number];
    this.at("arm").value = number;
    this.at("round").max = Math.max(0, this.arm.rounds.length - 1);
    this.go(0);
  }

  go(round) {
    const { rounds } = this.arm;
    this.round = Math.max(0, Math.min(round, rounds.length - 1));
    this.at("round").value = this.round;
    this.at("text").textContent = rounds.length ? `draft ${this.round + 1} of ${rounds.length}` : "no draft";
    const now = rounds[this.round] || { draft: "", words: [], hit: null, kept: "", windows: null };
    this.drawWords(now);
    this.drawOutcome(now);
    this.drawWindows(now.windows);
  }

  drawWords({ draft, words, hit }) {
    const most = Math.max(1e-9, ...words.map((word) => word.value));
    const nodes = words.map(({ text, value, content }, place) => {
      const bar = make("i", { ariaHidden: "true" });
      bar.style.height = `${Math.round((34 * value) / most)}px`;
      const number = make("small", { textContent: content ? value.toFixed(2) : "" });
      const fires = place === hit;
      const label = make("span", { textContent: fires ? `⟦${text}⟧` : text });
      return make("span", { className: `word${content ? "" : " plain"}${fires ? " hit" : ""}` }, bar, label, number);
    });
    this.at("draft").replaceChildren(...(nodes.length ? nodes : [draft]));
  }

  drawOutcome({ hit, words, kept, heads, rewrite }) {
    const row = (name, text) => make("p", {}, make("b", { textContent: `${name} ` }), make("span", { textContent: text }));
    const rows = [];
    if (hit === null) rows.push(row("No word fired; the answer so far:", kept));
    else {
      rows.push(row("Fired at", `“${words[hit].text}”. The draft is taken back to: “${kept.trim()}”`));
      if (heads) rows.push(row("Heads that choose:", heads.map(([layer, head]) => `${layer}-${head}`).join(", ")));
      if (rewrite !== null) rows.push(row("Written instead:", rewrite.trim()));
    }
    if (this.round >= this.arm.rounds.length - 1) rows.push(row(`The end (${this.arm.stop}):`, this.arm.text));
    this.at("outcome").replaceChildren(...rows);
  }

  /** The context as a line from its first to its last token, and the text of what is visible. */
  drawWindows(windows) {
    const { context, evidence } = this.question, [first, end] = context;
    const piece = (kind, from, to) => {
      const node = make("div", { className: `piece ${kind}` });
      node.style.left = `${(100 * (from - first)) / (end - first)}%`;
      node.style.width = `${(100 * (to - from)) / (end - first)}%`;
      return node;
    };
    const shown = windows || [];
    this.at("map").replaceChildren(
      ...shown.map((window) => piece("window", window.start, window.end)),
      ...evidence.map(([from, to]) => piece("fact", from, to)),
    );
    const facts = evidence.reduce((sum, [from, to]) => sum + to - from, 0);
    const seen = evidence.reduce((sum, [from, to]) => sum + shown.reduce((inner, window) =>
      inner + Math.max(0, Math.min(to, window.end) - Math.max(from, window.start)), 0), 0);
    const tokens = shown.reduce((sum, window) => sum + window.end - window.start, 0);
    this.at("seen").textContent = `${tokens} of ${end - first} context tokens become visible, ${seen} of ${facts} of the facts.`;
    const blocks = shown.map((window) =>
      make("blockquote", {}, make("small", { textContent: `tokens ${window.start} to ${window.end}` }), make("p", { textContent: window.text.trim() })));
    this.at("context").replaceChildren(...(blocks.length ? blocks : ["Nothing is retrieved for this draft."]));
  }
}
