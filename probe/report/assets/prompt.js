/* Tokens of prompt and answer, and marks where heads look. */

class Prompt {
  constructor(prompt, answer, onStep) {
    this.prompt = prompt;
    this.answer = answer;
    answer.addEventListener("click", (event) => {
      const step = event.target.dataset?.step;
      if (step !== undefined) onStep(Number(step));
    });
  }

  setSample(sample) {
    this.sample = sample;
    this.marked = new Map();
    this.nodes = sample.tokens.map((text, position) => {
      if (position < sample.prompt)
        return make("span", { textContent: text, className: sample.isEvidence(position) ? "t evidence" : "t" });
      // The slider is the keyboard's way through the answer, so its tokens stay out of the tab order.
      const token = make("button", { type: "button", textContent: visible(text), className: "token future", tabIndex: -1 });
      token.dataset.step = position - sample.prompt;
      return token;
    });
    this.badges = make("div", { ariaHidden: "true" });
    this.prompt.replaceChildren(...this.nodes.slice(0, sample.prompt), this.badges);
    this.answer.replaceChildren(...this.nodes.slice(sample.prompt));
    this.step = 0;
  }

  /** Only what changed is touched. `looks`: number of heads by position. */
  show(step, looks, keepInView) {
    const { nodes, sample } = this;
    this.moveTo(step);
    for (const position of this.marked.keys()) if (!looks.has(position)) delete nodes[position].dataset.n;
    for (const [position, count] of looks) if (this.marked.get(position) !== count) nodes[position].dataset.n = count;
    this.marked = looks;
    const inPrompt = [...looks.keys()].filter((position) => position < sample.prompt);
    this.number(inPrompt, looks);
    this.into(this.answer, nodes[sample.prompt + step]);
    if (!keepInView || !inPrompt.length) return;
    // An attention sink at the start is looked at by many; what is evidence comes first.
    const rank = (position) => looks.get(position) + (sample.isEvidence(position) ? 1e6 : 0);
    this.into(this.prompt, nodes[inPrompt.reduce((best, other) => (rank(other) > rank(best) ? other : best))]);
  }

  /** How many heads look, above each token. Numbers within the text would make the browser break its lines anew. */
  number(positions, looks) {
    const places = positions.map((position) => {
      const { offsetLeft, offsetTop, offsetWidth } = this.nodes[position];
      return [looks.get(position), offsetLeft + offsetWidth, offsetTop];
    });
    this.badges.replaceChildren(
      ...places.map(([count, left, top]) => {
        const badge = make("span", { className: "badge", textContent: count });
        badge.style.translate = `${left - 5}px ${top - 9}px`;
        return badge;
      }),
    );
  }

  /** The answer's tokens: the one chosen now, and those that are still to come. */
  moveTo(step) {
    const { nodes, sample } = this, former = this.step;
    for (let place = Math.min(former, step); place <= Math.max(former, step); place++)
      nodes[sample.prompt + place].classList.toggle("future", place > step);
    nodes[sample.prompt + former].removeAttribute("aria-current");
    nodes[sample.prompt + step].setAttribute("aria-current", "step");
    this.step = step;
  }

  /** Scroll a box so that a node of it can be seen; the page itself does not move. */
  into(box, node) {
    const top = node.offsetTop;
    if (top < box.scrollTop || top + node.offsetHeight > box.scrollTop + box.clientHeight)
      box.scrollTop = Math.max(0, top - box.clientHeight / 2);
  }
}
