/* Tokens and sources light up each other: on hover, on focus, and held by Enter or a click. */

const WEAK = 0.25, SHOWN = 120;
const links = JSON.parse(document.getElementById("links").textContent);
const status = document.getElementById("status");
const tokens = [...document.querySelectorAll(".token")];
const sources = [];
for (const node of document.querySelectorAll(".source")) sources[Number(node.dataset.source)] = node;
const percent = (share) => `${Math.round(100 * share)} %`;
const excerpt = (node) => {
  const text = node.textContent.trim();
  return text.length > SHOWN ? `${text.slice(0, SHOWN)}…` : text;
};

/** For each source, the tokens that it lights up with their shares, best first. */
const tokensOf = sources.map(() => []);
links.sources.forEach((row, token) => row.forEach(([source, share]) => tokensOf[source].push([token, share])));
let held = null;

function clear() {
  for (const node of [...tokens, ...sources]) {
    node.classList.remove("lit", "weak", "current");
    node.removeAttribute("data-rank");
    node.setAttribute("aria-pressed", String(node === held));
  }
}

function light(node, share, rank) {
  node.classList.add(share >= WEAK ? "lit" : "weak");
  if (rank) node.dataset.rank = rank;
}

function showToken(number) {
  const found = links.sources[number], name = `“${tokens[number].textContent.trim()}”`;
  found.forEach(([source, share], rank) => light(sources[source], share, rank + 1));
  const context = `${percent(links.context[number])} from the documents`;
  const [best] = found;
  const where = best
    ? `best source, document ${links.document[best[0]] + 1} (${percent(best[1])} of the sources): ${excerpt(sources[best[0]])}`
    : "no source";
  status.textContent = `${name}: ${links.grounded[number] ? "" : "not grounded ◌, "}${context}; ${where}`;
}

function showSource(number) {
  const found = tokensOf[number];
  found.forEach(([token, share]) => light(tokens[token], share));
  const words = found.slice(0, 12).map(([token]) => tokens[token].textContent.trim()).filter(Boolean);
  status.textContent = `Document ${links.document[number] + 1}, “${excerpt(sources[number])}”: ` +
    (words.length ? `source of ${words.join(" · ")}${found.length > 12 ? " …" : ""}` : "source of no token");
}

function show(node) {
  clear();
  if (!node) {
    status.textContent = "";
    return;
  }
  node.classList.add("current");
  if (node.classList.contains("token")) showToken(tokens.indexOf(node));
  else showSource(Number(node.dataset.source));
}

/** Hold a choice, and bring what it lights up into view; the same choice again releases it. */
function hold(node) {
  held = held === node ? null : node;
  show(held);
  if (!held) return;
  const token = held.classList.contains("token");
  const [first] = token ? links.sources[tokens.indexOf(held)] : tokensOf[Number(held.dataset.source)];
  if (first) (token ? sources : tokens)[first[0]].scrollIntoView({ block: "center", behavior: "auto" });
}

/** One stop of the Tab key in each group; arrow keys move within it. */
function listen(nodes) {
  const all = nodes.filter(Boolean);
  if (all.length) all[0].tabIndex = 0;
  all.forEach((node, place) => {
    node.addEventListener("mouseenter", () => held || show(node));
    node.addEventListener("mouseleave", () => held || show(null));
    node.addEventListener("focus", () => held || show(node));
    node.addEventListener("blur", () => held || show(null));
    node.addEventListener("click", () => hold(node));
    node.addEventListener("keydown", (event) => {
      const moves = { ArrowRight: place + 1, ArrowDown: place + 1, ArrowLeft: place - 1, ArrowUp: place - 1, Home: 0, End: all.length - 1 };
      if (event.key === "Enter" || event.key === " ") hold(node);
      else if (event.key in moves) {
        const next = all[Math.max(0, Math.min(moves[event.key], all.length - 1))];
        held = null;
        all.forEach((one) => { one.tabIndex = one === next ? 0 : -1; });
        next.focus();
        show(next);
      } else return;
      event.preventDefault();
    });
  });
}

listen(tokens);
const inOrder = [...document.querySelectorAll(".source")];
listen(inOrder);
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") {
    held = null;
    show(null);
  }
});
document.documentElement.dataset.ready = "yes";
