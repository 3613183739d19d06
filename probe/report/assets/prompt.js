/* Tokens of prompt and answer, with the heads' argmax positions marked. */

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
      // The slider gives the keyboard access to all steps, so these buttons stay out of the tab order.
      const token = make("button", { type: "button", textContent: visible(text), className: "token future", tabIndex: -1 });
      token.dataset.step = position - sample.prompt;
      return token;
    });
    this.badges = make("div", { ariaHidden: "true" });
    this.prompt.replaceChildren(...this.nodes.slice(0, sample.prompt), this.badges);
    this.answer.replaceChildren(...this.nodes.slice(sample.prompt));
    this.step = 0;
  }

  /** Mark a step, touching only what changed. `counts`: number of heads by argmax position. */
  show(step, counts, keepInView) {
    const { nodes, sample } = this;
    this.moveTo(step);
    for (const position of this.marked.keys()) if (!counts.has(position)) delete nodes[position].dataset.n;
    for (const [position, count] of counts) if (this.marked.get(position) !== count) nodes[position].dataset.n = count;
    this.marked = counts;
    const inPrompt = [...counts.keys()].filter((position) => position < sample.prompt);
    this.drawBadges(inPrompt, counts);
    this.scrollTo(this.answer, nodes[sample.prompt + step]);
    if (!keepInView || !inPrompt.length) return;
    // Evidence before other positions: many heads attend most to the attention sink at the start.
    const rank = (position) => counts.get(position) + (sample.isEvidence(position) ? 1e6 : 0);
    this.scrollTo(this.prompt, nodes[inPrompt.reduce((best, other) => (rank(other) > rank(best) ? other : best))]);
  }

  /** The number of heads above each token, in an overlay: within the text it would change the line breaks. */
  drawBadges(positions, counts) {
    const places = positions.map((position) => {
      const { offsetLeft, offsetTop, offsetWidth } = this.nodes[position];
      return [counts.get(position), offsetLeft + offsetWidth, offsetTop];
    });
    this.badges.replaceChildren(
      ...places.map(([count, left, top]) => {
        const badge = make("span", { className: "badge", textContent: count });
        badge.style.translate = `${left - 5}px ${top - 9}px`;
        return badge;
      }),
    );
  }

  /** In the answer, the token of this step and the tokens after it. */
  moveTo(step) {
    const { nodes, sample } = this, previous = this.step;
    for (let other = Math.min(previous, step); other <= Math.max(previous, step); other++)
      nodes[sample.prompt + other].classList.toggle("future", other > step);
    nodes[sample.prompt + previous].removeAttribute("aria-current");
    nodes[sample.prompt + step].setAttribute("aria-current", "step");
    this.step = step;
  }

  /** Scroll a box to one of its nodes; the page itself does not scroll. */
  scrollTo(box, node) {
    const top = node.offsetTop;
    if (top < box.scrollTop || top + node.offsetHeight > box.scrollTop + box.clientHeight)
      box.scrollTop = Math.max(0, top - box.clientHeight / 2);
  }
}
