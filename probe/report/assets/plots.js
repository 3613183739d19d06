/* Interactive plots by plotly.js, which is inflated with the first of them; each is drawn when it comes into view. */

const plots = { specs: null, drawn: new Set(), library: null };

function loadPlotly() {
  plots.library ??= Promise.all([inflateText("plotly"), inflateText("plots")]).then(([code, specs]) => {
    document.head.append(make("script", { textContent: code }));
    plots.specs = JSON.parse(specs);
  });
  return plots.library;
}

/** `var:--name` or `var:--name:opacity` becomes the page's colour, at any depth of a value. */
function coloured(value) {
  if (typeof value === "string" && value.startsWith("var:")) {
    const [, name, opacity] = value.split(":");
    const hex = colour(name);
    if (!opacity) return hex;
    const [red, green, blue] = [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
    return `rgba(${red}, ${green}, ${blue}, ${opacity})`;
  }
  if (Array.isArray(value)) return value.map(coloured);
  if (value && typeof value === "object")
    return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, coloured(inner)]));
  return value;
}

/** A layout in the page's colours and font. */
function themed(layout) {
  const complete = {
    ...layout,
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: colour("--ink"), family: "system-ui, sans-serif", size: 12 },
    hoverlabel: { bgcolor: colour("--panel"), font: { color: colour("--ink") } },
  };
  for (const name of Object.keys(complete))
    if (/^[xy]axis\d*$/.test(name)) complete[name] = { gridcolor: colour("--rule"), linecolor: colour("--rule"), ...complete[name] };
  return complete;
}

async function drawPlot(node) {
  await loadPlotly();
  plots.drawn.add(node);
  const { data, layout } = coloured(plots.specs[Number(node.dataset.plot)].spec);
  await Plotly.react(node, data, themed(layout), { responsive: true, displaylogo: false, displayModeBar: false });
}

function startPlots() {
  const watcher = new IntersectionObserver(
    (entries) => {
      for (const entry of entries.filter((one) => one.isIntersecting)) {
        watcher.unobserve(entry.target);
        drawPlot(entry.target);
      }
    },
    { rootMargin: "400px" },
  );
  for (const node of document.querySelectorAll(".plot")) watcher.observe(node);
  onSchemeChange(() => plots.drawn.forEach(drawPlot));
}
