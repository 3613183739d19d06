/* Masked dynamic RAG: what was visible, how uncertain the draft was, and what was written instead. */

class Rag {
  constructor(runs) {
    this.questions = runs.flat();
    this.at = (id) => document.getElementById(`rag-${id}`);
    const lines = this.questions.map((one, place) => make("option", { value: place, textContent: one.question }));
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
    const { question, gold, arms, tokens, context, evidence } = this.question;
    this.at("asked").textContent = question;
    this.at("gold").textContent = `wanted: ${gold}`;
    this.at("arm").replaceChildren(
      ...arms.map((arm, number) => make("option", { value: number, textContent: `${arm.strategy}: ${arm.em ? "right" : "wrong"}, F1 ${Number(arm.f1).toFixed(2)}` })),
    );
    const first = context ? context[0] : 0;
    const facts = (position) => (evidence || []).some(([start, end]) => start <= position && position < end);
    this.nodes = (tokens || []).map((text, place) =>
      make("span", { textContent: text, className: facts(first + place) ? "t evidence" : "t" }));
    this.at("context").replaceChildren(...(this.nodes.length ? this.nodes : ["This run kept no context."]));
    this.openArm(0);
  }

  openArm(number) {
    this.arm = this.question.arms[number];
    this.at("arm").value = number;
    this.at("round").max = Math.max(0, this.arm.rounds.length - 1);
    this.go(0);
  }

  go(round) {
    this.round = Math.max(0, Math.min(round, this.arm.rounds.length - 1));
    this.at("round").value = this.round;
    const now = this.arm.rounds[this.round];
    this.at("text").textContent = `draft ${this.round + 1} of ${this.arm.rounds.length}`;
    if (!now) return this.at("draft").replaceChildren("No draft was made.");
    this.drawWords(now);
    this.drawOutcome(now);
    this.drawWindows(now.windows || []);
  }

  drawWords({ draft, words, hit }) {
    const most = Math.max(1e-9, ...(words || []).map((word) => word.value));
    const nodes = (words || []).map(({ text, value, content }, place) => {
      const bar = make("i", { ariaHidden: "true" });
      bar.style.height = `${Math.round((34 * value) / most)}px`;
      const label = make("span", { textContent: text });
      const number = make("small", { textContent: content ? value.toFixed(2) : "" });
      return make("span", { className: `word${content ? "" : " plain"}${place === hit ? " hit" : ""}` }, bar, label, number);
    });
    this.at("draft").replaceChildren(...(nodes.length ? nodes : [draft]));
  }

  drawOutcome({ hit, words, kept, heads, rewrite, windows }) {
    const row = (name, text) => make("p", {}, make("b", { textContent: `${name} ` }), make("span", { textContent: text }));
    const rows = [];
    if (hit === null || hit === undefined) rows.push(row("No word fired; kept:", kept));
    else {
      rows.push(row("Fired at", `“${words[hit].text}”; the draft is taken back to: “${kept}”`));
      if (heads) rows.push(row("Heads that look:", heads.map(([layer, head]) => `${layer}-${head}`).join(", ")));
      if (windows) rows.push(row("Shown:", windows.map((window) => `“${window.text.trim()}”`).join(" … ")));
      if (rewrite !== null) rows.push(row("Written instead:", rewrite));
    }
    if (this.round === this.arm.rounds.length - 1) rows.push(row(`Ended (${this.arm.stop}):`, this.arm.answer ?? "no answer"));
    this.at("outcome").replaceChildren(...rows);
  }

  drawWindows(windows) {
    const first = this.question.context ? this.question.context[0] : 0;
    const shown = (position) => windows.some(({ start, end }) => start <= position && position < end);
    this.nodes.forEach((node, place) => node.classList.toggle("window", shown(first + place)));
    const seen = this.nodes.find((node) => node.classList.contains("window"));
    const box = this.at("context");
    if (seen) box.scrollTop = Math.max(0, seen.offsetTop - 40);
  }
}
