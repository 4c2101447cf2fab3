// Drawing

const LIMIT = { curves: 8, cost: 40, forest: 24, parallel: Infinity, differences: 8, classes: 16 };
const LEGEND = 12;
const CONFIG = {
  displaylogo: false,
  responsive: true,
  modeBarButtonsToRemove: ["lasso2d", "select2d", "autoScale2d", "zoomIn2d", "zoomOut2d"],
  toImageButtonOptions: { format: "svg", filename: "comparison" },
};

/** What all figures share: fonts, grid and background of the theme. */
function dress(layout) {
  const axis = {
    gridcolor: cssColour("grid"), linecolor: cssColour("line"), zerolinecolor: cssColour("line"), tickcolor: cssColour("line"), automargin: true,
  };
  const dressed = {
    font: { family: getComputedStyle(document.body).fontFamily, size: 13, color: cssColour("text") },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    margin: { l: 56, r: 12, t: 12, b: 48 },
    showlegend: false,
    hoverlabel: { bgcolor: cssColour("card"), bordercolor: cssColour("line"), font: { color: cssColour("text") }, align: "left", namelength: -1 },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: cssColour("quiet"), activecolor: cssColour("accent") },
    ...layout,
  };
  for (const name of new Set(["xaxis", "yaxis", ...Object.keys(layout).filter((key) => /^[xy]axis/.test(key))])) {
    dressed[name] = { ...axis, ...layout[name] };
    if (layout[name]?.title) dressed[name].title = { standoff: 12, ...layout[name].title };
  }
  for (const shape of layout.shapes ?? []) shape.line = { color: cssColour("quiet"), width: 1, dash: "dot", ...shape.line };
  return dressed;
}

/** The figure's traces of these groups, in the order of the groups, the baseline in front. */
function tracesOf(figure, shown) {
  return copy(figure.data).filter((trace) => shown.includes(trace.meta.group));
}

/** Steps as epochs, by places at which both are known; what lies behind them goes on as before. */
function inEpochs(steps, [known, epochs]) {
  return steps.map((step) => {
    const after = known.findIndex((place) => place >= step), at = after < 0 ? known.length - 1 : Math.max(1, after);
    return epochs[at] + ((step - known[at]) * (epochs[at] - epochs[at - 1])) / (known[at] - known[at - 1]);
  });
}

/** Lines with bands; `name` is that of the drop-downs. */
function drawCurves(name, figure, limit) {
  const shown = visible(limit);
  const epochs = control(`${name}-axis`).value === "epoch";
  const banded = control(`${name}-band`)?.checked ?? true;
  const traces = [], bands = [], begun = [];
  for (const trace of tracesOf(figure, shown)) {
    const { group, seeds } = trace.meta;
    const places = (steps) => (epochs && trace.meta.epochs.length ? inEpochs(steps, trace.meta.epochs) : steps);
    trace.x = places(trace.x);
    for (const x of places(trace.meta.begins))
      begun.push({ type: "line", yref: "paper", x0: x, x1: x, y0: 0, y1: 0.06, line: { color: colour(group), width: 2, dash: "solid" } });
    const error = trace.error_y.array;
    delete trace.error_y;
    if (banded && seeds > 1) {
      bands.push({
        x: [...trace.x, ...trace.x.slice().reverse()],
        y: [...trace.y.map((y, at) => y + error[at]), ...trace.y.map((y, at) => y - error[at]).reverse()],
        type: "scatter", mode: "lines", fill: "toself", fillcolor: faded(colour(group), 0.16), line: { width: 0 }, hoverinfo: "skip", meta: { group, band: true },
      });
    }
    trace.name = groups[group].short;
    trace.line = { color: colour(group), width: group === data.baseline ? 2.5 : 2, dash: groups[group].dash };
    if (trace.x.length <= 30) Object.assign(trace, { mode: "lines+markers", marker: { color: colour(group), size: 6, symbol: mark(group) } });
    const count = trace.customdata ? "%{customdata}" : String(seeds);
    trace.hovertemplate = `%{y:.4~g}${seeds > 1 ? " ± %{text}" : ""} (n = ${count})<extra>%{fullData.name}</extra>`;
    trace.text = error.map((value) => Number(value).toPrecision(2));
    traces.push(trace);
  }
  const layout = copy(figure.layout);
  layout.xaxis = { title: { text: epochs ? "epoch" : "step" }, rangemode: "tozero" };
  const known = epochs && traces[0]?.meta.epochs;
  if (known?.length) for (const shape of layout.shapes ?? []) [shape.x0, shape.x1] = inEpochs([shape.x0, shape.x1], known);
  layout.shapes ??= begun;
  layout.hovermode = traces.length > 10 ? "closest" : "x unified";
  layout.yaxis.type = control(`${name}-log`)?.checked ? "log" : "linear";
  layout.height = name === "curves" ? 440 : 320;
  legend(name, traces.map((trace) => trace.meta.group));
  return { data: [...bands, ...traces], layout };
}

const mark = (group) => groups[group].mark;

function drawCost() {
  const figure = figures.cost[control("cost").value];
  const traces = tracesOf(figure, visible(LIMIT.cost));
  for (const trace of traces) {
    const group = trace.meta.group;
    trace.name = groups[group].short;
    trace.marker = { color: colour(group), size: 11, symbol: mark(group), line: { width: 1, color: cssColour("card") } };
    for (const error of [trace.error_x, trace.error_y]) if (error) Object.assign(error, { color: faded(colour(group), 0.6), thickness: 1.5, width: 4 });
    trace.hovertemplate = `%{y:.4~g}${trace.error_y ? " ± %{error_y.array:.2~g}" : ""} at %{x:.4~g}${trace.error_x ? " ± %{error_x.array:.2~g}" : ""}<extra>%{fullData.name}</extra>`;
  }
  const layout = copy(figure.layout);
  layout.hovermode = "closest";
  layout.height = 440;
  say("cost", LIMIT.cost);
  if (!chosen.size && traces.length > LEGEND) first('[data-shown="cost"]').textContent += " Point at a marker to see whose it is.";
  legend("cost", traces.map((trace) => trace.meta.group));
  return { data: traces, layout };
}

/** The trials of a search in their order. */
function drawSearch() {
  const { data: traces, layout } = copy(figures.search);
  for (const trace of traces) {
    if (trace.meta.part === "best") {
      trace.line = { color: cssColour("quiet"), width: 2, shape: "hv" };
      trace.hoverinfo = "skip";
      continue;
    }
    const given = trace.meta.part === "pruned";
    trace.marker = { color: cssColour(given ? "quiet" : "accent"), size: given ? 7 : 9, symbol: given ? "x-thin" : "circle", line: { width: given ? 2 : 0, color: cssColour("quiet") } };
    trace.hovertemplate = "trial %{x}: %{y:.4~g}<br>%{text}<extra></extra>";
  }
  return { data: traces, layout: { ...layout, hovermode: "closest", height: 380 } };
}

/** A category axis with the groups from top to bottom. */
function groupAxis(shown, place) {
  const width = place.clientWidth;
  const length = Math.max(14, Math.floor(width / 24));
  const cut = (text) => (text.length > length ? `${text.slice(0, length - 9)}…${text.slice(-8)}` : text);
  return {
    type: "category", categoryorder: "array", categoryarray: shown.map(String), range: [shown.length - 0.4, -0.6], tickvals: shown.map(String),
    ticktext: shown.map((group) => escaped(cut(groups[group].label))),
  };
}

/** A text that plotly must take neither for markup nor for a template. */
const escaped = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;").replace(/%\{/g, "%&#123;");

function drawForest(place) {
  const shown = visible(LIMIT.forest);
  const traces = tracesOf(figures.forest, shown);
  for (const trace of traces) {
    const { group, part } = trace.meta;
    trace.name = groups[group].short;
    if (part === "seeds") {
      trace.marker = { color: faded(colour(group), 0.45), size: 7 };
      trace.hovertemplate = "%{x:.4~g}, seed %{customdata}<extra>%{fullData.name}</extra>";
    } else {
      trace.marker = { color: colour(group), size: 10, symbol: mark(group) };
      if (trace.error_x) Object.assign(trace.error_x, { color: colour(group), thickness: 2, width: 5 });
      const interval = trace.error_x ? ` (+%{error_x.array:.3~g}, −%{error_x.arrayminus:.3~g})` : "";
      trace.hovertemplate = `${part} %{x:.4~g}${interval}<extra>%{fullData.name}</extra>`;
    }
  }
  const layout = copy(figures.forest.layout);
  layout.yaxis = groupAxis(shown, place);
  layout.hovermode = "closest";
  layout.height = 90 + 30 * shown.length;
  say("forest", LIMIT.forest);
  const compared = traces.some((trace) => trace.meta.part === "difference");
  if (place.clientWidth < 560 && compared) { // no room side by side: what matters more
    layout.xaxis.visible = false;
    layout.xaxis.domain = [0, 0.001];
    layout.xaxis2.domain = [0, 1];
    return { data: traces.filter((trace) => trace.meta.part === "difference"), layout };
  }
  return { data: traces, layout };
}
