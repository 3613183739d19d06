/* Interactive figures, drawn as they come into view, by plotly.js, which is inflated with the first of them. */

const figures = { specs: null, drawn: new Set(), library: null };

function loadPlotly() {
  figures.library ??= Promise.all([inflateText("plotly"), inflateText("figures")]).then(([code, specs]) => {
    document.head.append(make("script", { textContent: code }));
    figures.specs = JSON.parse(specs);
  });
  return figures.library;
}

/** `var:--name` or `var:--name:opacity` becomes the page's colour; everything else stays. */
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

function themed(layout) {
  const whole = {
    ...layout,
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: colour("--ink"), family: "system-ui, sans-serif", size: 12 },
    hoverlabel: { bgcolor: colour("--panel"), font: { color: colour("--ink") } },
  };
  for (const name of Object.keys(whole))
    if (/^[xy]axis\d*$/.test(name)) whole[name] = { gridcolor: colour("--rule"), linecolor: colour("--rule"), ...whole[name] };
  return whole;
}

async function drawFigure(node) {
  await loadPlotly();
  figures.drawn.add(node);
  const { data, layout } = coloured(figures.specs[Number(node.dataset.figure)].spec);
  await Plotly.react(node, data, themed(layout), { responsive: true, displaylogo: false, displayModeBar: false });
}

function startFigures() {
  const watcher = new IntersectionObserver(
    (entries) => {
      for (const entry of entries.filter((one) => one.isIntersecting)) {
        watcher.unobserve(entry.target);
        drawFigure(entry.target);
      }
    },
    { rootMargin: "400px" },
  );
  for (const node of document.querySelectorAll(".plot")) watcher.observe(node);
  onSchemeChange(() => figures.drawn.forEach(drawFigure));
}
