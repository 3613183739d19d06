/* Masked dynamic RAG: the draft with its RIND values, the visible windows of the context, and the rewritten sentence. */

class Rag {
  constructor(questions) {
    this.questions = questions;
    this.node = (id) => document.getElementById(`rag-${id}`);
    const several = new Set(questions.map((one) => one.run)).size > 1;
    const lines = questions.map((one, index) =>
      make("option", { value: index, textContent: several ? `${one.question} · ${one.run}` : one.question }));
    this.node("question").replaceChildren(...lines);
    this.node("question").addEventListener("change", (event) => this.openQuestion(Number(event.target.value)));
    this.node("strategy").addEventListener("change", (event) => this.openTrace(Number(event.target.value)));
    this.node("round").addEventListener("input", (event) => this.go(Number(event.target.value)));
    this.node("back").addEventListener("click", () => this.go(this.round - 1));
    this.node("forward").addEventListener("click", () => this.go(this.round + 1));
    this.openQuestion(0);
  }

  openQuestion(index) {
    this.question = this.questions[index];
    const { question, gold, traces } = this.question;
    this.node("text").textContent = question;
    this.node("gold").textContent = `gold: ${gold}`;
    this.node("strategy").replaceChildren(
      ...traces.map(({ strategy, metrics }, number) => {
        const text = `${strategy}: ${metrics.em ? "correct" : "wrong"}, F1 ${Number(metrics.f1).toFixed(2)}`;
        return make("option", { value: number, textContent: text });
      }),
    );
    this.openTrace(0);
  }

  openTrace(number) {
    this.trace = this.question.traces[number];
    this.node("strategy").value = number;
    this.node("round").max = Math.max(0, this.trace.rounds.length - 1);
    this.go(0);
  }

  go(number) {
    const { rounds } = this.trace;
    this.round = Math.max(0, Math.min(number, rounds.length - 1));
    this.node("round").value = this.round;
    this.node("position").textContent = rounds.length ? `draft ${this.round + 1} of ${rounds.length}` : "no draft";
    const round = rounds[this.round] || { draft: "", words: [], hit: null, kept: "", windows: null };
    this.drawWords(round);
    this.drawOutcome(round);
    this.drawWindows(round.windows);
  }

  drawWords({ draft, words, hit }) {
    const most = Math.max(1e-9, ...words.map((word) => word.value));
    const nodes = words.map(({ text, value, content }, index) => {
      const bar = make("i", { ariaHidden: "true" });
      bar.style.height = `${Math.round((34 * value) / most)}px`;
      const number = make("small", { textContent: content ? value.toFixed(2) : "" });
      const fires = index === hit;
      const label = make("span", { textContent: fires ? `⟦${text}⟧` : text });
      return make("span", { className: `word${content ? "" : " plain"}${fires ? " hit" : ""}` }, bar, label, number);
    });
    this.node("draft").replaceChildren(...(nodes.length ? nodes : [draft]));
  }

  drawOutcome({ hit, words, kept, heads, rewrite }) {
    const row = (name, text) => make("p", {}, make("b", { textContent: `${name} ` }), make("span", { textContent: text }));
    const rows = [];
    if (hit === null) rows.push(row("No retrieval; the answer so far:", kept));
    else {
      rows.push(row("Retrieval triggered at", `“${words[hit].text}”. The draft is retracted to: “${kept.trim()}”`));
      if (heads) rows.push(row("Retrieval heads:", heads.map(([layer, head]) => `${layer}-${head}`).join(", ")));
      if (rewrite !== null) rows.push(row("Rewritten sentence:", rewrite.trim()));
    }
    if (this.round >= this.trace.rounds.length - 1) rows.push(row(`Final answer (${this.trace.stop}):`, this.trace.text));
    this.node("outcome").replaceChildren(...rows);
  }

  /** The context as a bar from its first to its last token, and the text of the visible windows. */
  drawWindows(windows) {
    const { context, evidence } = this.question, [first, end] = context;
    const piece = (kind, from, to) => {
      const node = make("div", { className: `piece ${kind}` });
      node.style.left = `${(100 * (from - first)) / (end - first)}%`;
      node.style.width = `${(100 * (to - from)) / (end - first)}%`;
      return node;
    };
    const shown = windows || [];
    this.node("map").replaceChildren(
      ...shown.map((window) => piece("window", window.start, window.end)),
      ...evidence.map(([from, to]) => piece("fact", from, to)),
    );
    const facts = evidence.reduce((sum, [from, to]) => sum + to - from, 0);
    const found = evidence.reduce((sum, [from, to]) => sum + shown.reduce((inner, window) =>
      inner + Math.max(0, Math.min(to, window.end) - Math.max(from, window.start)), 0), 0);
    const tokens = shown.reduce((sum, window) => sum + window.end - window.start, 0);
    this.node("visible").textContent =
      `${tokens} of ${end - first} context tokens become visible, with ${found} of ${facts} tokens of the supporting facts.`;
    const blocks = shown.map((window) =>
      make("blockquote", {}, make("small", { textContent: `tokens ${window.start} to ${window.end}` }), make("p", { textContent: window.text.trim() })));
    this.node("context").replaceChildren(...(blocks.length ? blocks : ["Nothing is retrieved for this draft."]));
  }
}
