"use strict";
// The table chooses groups, the plots show the chosen ones. Figures come from Python; here they get colours and are drawn
// when they scroll into view.

const data = JSON.parse(document.getElementById("data").textContent);
const groups = data.groups;
const figures = data.figures;
const all = groups.map((_, group) => group); // best first
const rows = [...document.querySelectorAll(".groups tbody tr")];
const chosen = new Set();

const first = (selector, within = document) => within.querySelector(selector);
const every = (selector, within = document) => [...within.querySelectorAll(selector)];
const control = (name) => first(`[data-control="${CSS.escape(name)}"]`);
const cssColour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
const theme = () => document.documentElement.dataset.theme;
const colour = (group) => data.colours[theme()][groups[group].colour];
const copy = (figure) => structuredClone(figure);

// Which groups

/** The chosen groups; with none chosen the baseline and the best `limit` others. */
function visible(limit = Infinity) {
  if (chosen.size) return all.filter((group) => chosen.has(group));
  const best = all.filter((group) => group !== data.baseline).slice(0, limit);
  return all.filter((group) => group === data.baseline || best.includes(group));
}

/** Say under a plot when it does not show everything. */
function say(name, limit) {
  const place = first(`[data-shown="${name}"]`);
  const left = !chosen.size && groups.length - 1 > limit;
  if (place) place.textContent = left ? `Shown: the baseline and the best ${limit} of ${groups.length} groups; select rows in the table to see others.` : "";
}

// Colours

/** A short line and a marker in the group's style, for tables and legends. */
function swatch(group) {
  const style = groups[group];
  const dash = { solid: "", dash: "5 3", dot: "2 2.5", dashdot: "6 2 2 2" }[style.dash];
  const stroke = colour(group);
  const shapes = {
    "circle": `<circle cx="12" cy="5" r="3.6"/>`,
    "diamond": `<path d="M12 .2 16.8 5 12 9.8 7.2 5z"/>`,
    "square": `<rect x="8.6" y="1.6" width="6.8" height="6.8"/>`,
    "triangle-up": `<path d="M12 .4 16.6 8.6H7.4z"/>`,
    "triangle-down": `<path d="M12 9.6 16.6 1.4H7.4z"/>`,
    "cross": `<path d="M12 0V10M7 5H17" stroke="${stroke}" stroke-width="3"/>`,
    "x": `<path d="M8.4 1.4 15.6 8.6M15.6 1.4 8.4 8.6" stroke="${stroke}" stroke-width="2.4"/>`,
  };
  return `<svg viewBox="0 0 24 10" aria-hidden="true" fill="${stroke}"><path d="M0 5H24" stroke="${stroke}" stroke-width="2" stroke-dasharray="${dash}"/>${shapes[style.mark]}</svg>`;
}

function paintSwatches() {
  for (const place of every("[data-swatch]")) place.innerHTML = swatch(Number(place.dataset.swatch));
}

function faded(hex, opacity) {
  const [red, green, blue] = [1, 3, 5].map((start) => parseInt(hex.slice(start, start + 2), 16));
  return `rgba(${red},${green},${blue},${opacity})`;
}

/** From the card's colour to a strong one. */
const sequential = () => (theme() === "dark"
  ? [[0, "#181c24"], [1, "#3d84c6"]]
  : [[0, "#ffffff"], [0.5, "#8dbce6"], [1, "#0b4a8a"]]);
/** Worse is orange, better is blue. */
const diverging = () => (theme() === "dark"
  ? [[0, "#c8641e"], [0.5, "#181c24"], [1, "#3d84c6"]]
  : [[0, "#b34700"], [0.25, "#f0a773"], [0.5, "#ffffff"], [0.75, "#7fb4e3"], [1, "#0b4a8a"]]);
/** For lines: the best stands out from the card. */
function lines() {
  const scale = theme() === "dark"
    ? ["#6b4a8f", "#4a74b4", "#2ea3a0", "#7fd06a", "#ffe83d"]
    : ["#cfae2f", "#6fb05c", "#2f9a8f", "#33669a", "#3b1a5e"];
  const order = data.larger ? scale : scale.reverse();
  return order.map((value, place) => [place / (order.length - 1), value]);
}

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
  for (const shape of layout.shapes ?? []) shape.line = { color: cssColour("quiet"), width: 1, dash: "dot" };
  return dressed;
}

/** The figure's traces of these groups, in the order of the groups, the baseline in front. */
function tracesOf(figure, shown) {
  return copy(figure.data).filter((trace) => shown.includes(trace.meta.group));
}

/** Lines with bands; `name` is that of the drop-downs. */
function drawCurves(name, figure, limit) {
  const shown = visible(limit);
  const epochs = control(`${name}-axis`).value === "epoch";
  const banded = control(`${name}-band`)?.checked ?? true;
  const traces = [], bands = [];
  for (const trace of tracesOf(figure, shown)) {
    const { group, epoch, seeds } = trace.meta;
    if (epochs && epoch) trace.x = trace.x.map((step) => step / epoch);
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

const COLOUR_BAR = 110;
const pen = document.createElement("canvas").getContext("2d");

/** How many pixels a text takes. */
function widthOf(text, size) {
  pen.font = `${size}px ${getComputedStyle(document.body).fontFamily}`;
  return Math.ceil(pen.measureText(String(text)).width);
}

function drawParallel(place) {
  const shown = visible();
  const trace = copy(figures.parallel.data[0]);
  const kept = trace.meta.groups.map((group, at) => (shown.includes(group) ? at : -1)).filter((at) => at >= 0);
  const pick = (values) => kept.map((at) => values[at]);
  // the ends of the axes and of the colours stay where they are, whatever is chosen
  const range = (values) => [Math.min(...values), Math.max(...values)];
  const [low, high] = range(trace.line.color);
  for (const dimension of trace.dimensions) {
    const [from, to] = range(dimension.values);
    dimension.range ??= from === to ? [from - 0.5, to + 0.5] : [from, to];
    dimension.values = pick(dimension.values);
  }
  Object.assign(trace.line, { color: pick(trace.line.color), cmin: low, cmax: high === low ? low + 1 : high, colorscale: lines(), showscale: true });
  Object.assign(trace.line.colorbar, { thickness: 12, outlinewidth: 0 });
  trace.meta.groups = pick(trace.meta.groups);
  trace.labelfont = { size: 13, color: cssColour("text") };
  trace.tickfont = { size: 12, color: cssColour("text"), shadow: "none" };
  trace.rangefont = { size: 1, color: "rgba(0,0,0,0)" };
  trace.unselected = { line: { color: cssColour("grid"), opacity: 0.35 } };
  // room for the widest name and tick of all axes, as any of them may be moved to the edge
  const widths = trace.dimensions.map((dimension) => widthOf(dimension.label, 13));
  const names = Math.max(...widths);
  const beside = Math.max(0, ...widths.slice(1).map((width, at) => (width + widths[at]) / 2));
  const ticks = Math.max(0, ...trace.dimensions.flatMap((dimension) => (dimension.ticktext ?? []).map((text) => widthOf(text, 12))));
  const margin = { l: Math.max(90, ticks + 24, names / 2 + 12), r: Math.max(50, names / 2 + 12), t: 50, b: 30 };
  const apart = Math.max(130, beside + 16, ticks + 40);
  place.style.minWidth = `${Math.ceil(apart * (trace.dimensions.length - 1) + margin.l + margin.r + COLOUR_BAR)}px`;
  const layout = { ...copy(figures.parallel.layout), height: 420, margin };
  return { data: [trace], layout };
}

/** Numbers in the cells of a heat map, where they fit. */
function numbered(trace, place, columns, format) {
  if (place.clientWidth / columns > 44) Object.assign(trace, { texttemplate: format, textfont: { size: 12 } });
}

function drawClasses(place) {
  const figure = figures.classes[control("classes-task").value][control("classes-score").value];
  const trace = copy(figure.data[0]);
  const layout = copy(figure.layout);
  const difference = control("classes-difference").checked;
  const rowOf = new Map(trace.meta.rows.map((group, row) => [group, row]));
  const shown = visible(LIMIT.classes).filter((group) => rowOf.has(group));
  const base = trace.z[rowOf.get(data.baseline)];
  const minus = (values) => values.map((value, at) => (value === null || !base || base[at] === null ? null : value - base[at]));
  const kept = difference ? shown.filter((group) => group !== data.baseline) : shown;
  if (!kept.length || (difference && !base)) return empty("Nothing to compare: the baseline has no such results, or it is alone.");
  trace.z = kept.map((group) => (difference ? minus(trace.z[rowOf.get(group)]) : trace.z[rowOf.get(group)]));
  trace.y = kept.map(String);
  const most = Math.max(1e-9, ...trace.z.flat().map((value) => Math.abs(value ?? 0)));
  const values = trace.z.flat().filter((value) => value !== null);
  Object.assign(trace, difference
    ? { colorscale: diverging(), zmin: -most, zmax: most }
    : { colorscale: sequential(), zmin: Math.min(...values), zmax: Math.max(...values) });
  trace.customdata = trace.z.map((row, at) => row.map(() => groups[kept[at]].short));
  trace.hovertemplate = `%{customdata}<br>%{x}: %{z:${difference ? "+" : ""}.1f}${difference ? " points" : " %"}<extra></extra>`;
  trace.colorbar = { thickness: 12, outlinewidth: 0, ticksuffix: difference ? "" : " %" };
  Object.assign(trace, { xgap: 2, ygap: 2, meta: { rows: kept } });
  numbered(trace, place, 1.6 * trace.x.length, difference ? "%{z:+.1f}" : "%{z:.1f}");
  layout.yaxis = { ...groupAxis(kept, place), showgrid: false };
  layout.xaxis = { ...layout.xaxis, showgrid: false, side: "top", zeroline: false };
  layout.height = 130 + 34 * kept.length;
  layout.margin = { l: 56, r: 12, t: 48, b: 12 };
  say("classes", LIMIT.classes);
  return { data: [trace], layout };
}

function drawConfusion(place) {
  const entry = figures.confusion[control("confusion-task").value];
  const choice = control("confusion-group");
  const counts = entry.counts[choice.value];
  if (!counts) return empty("This group has no confusion matrix for this task.");
  const view = control("confusion-view").value;
  const shares = (matrix) => matrix.map((row) => {
    const total = row.reduce((sum, count) => sum + count, 0);
    return row.map((count) => (total ? (100 * count) / total : null));
  });
  let z = shares(counts);
  const base = entry.counts[data.baseline];
  if (view === "difference") {
    if (!base) return empty("The baseline has no confusion matrix for this task.");
    const reference = shares(base);
    z = z.map((row, i) => row.map((value, j) => (value === null || reference[i][j] === null ? null : value - reference[i][j])));
  }
  if (view === "errors") z = z.map((row, i) => row.map((value, j) => (i === j ? null : value)));
  // a fall of the errors is as good as a rise of the hits: blue is better everywhere; the root shows rare errors beside hits
  const shade = { share: (value) => Math.sqrt(value), errors: (value) => value, difference: (value, hit) => (hit ? value : -value) }[view];
  const colours = z.map((row, i) => row.map((value, j) => (value === null ? null : shade(value, i === j))));
  const most = Math.max(1e-9, ...colours.flat().map((value) => Math.abs(value ?? 0)));
  const places = entry.classes.map((_, at) => at);
  const trace = {
    type: "heatmap", x: places, y: places, z: colours, text: z, customdata: counts.map((row, i) => row.map((count, j) => [count, entry.classes[i], entry.classes[j]])),
    xgap: 1, ygap: 1, zmin: view === "difference" ? -most : 0, zmax: most, colorscale: view === "difference" ? diverging() : sequential(),
    showscale: false,
    hovertemplate: `true %{customdata[1]}, taken for %{customdata[2]}<br>%{text:${view === "difference" ? "+" : ""}.2f} ${view === "difference" ? "points" : "%"}, %{customdata[0]} samples<extra></extra>`,
    meta: { group: Number(choice.value) },
  };
  numbered(trace, place, 1.5 * places.length, view === "difference" ? "%{text:+.1f}" : "%{text:.1f}");
  const axis = { tickvals: places, ticktext: entry.classes, showgrid: false, zeroline: false };
  const size = Math.min(place.clientWidth, 300 + 36 * places.length, 820);
  const layout = {
    xaxis: { ...axis, title: { text: "predicted class" }, constrain: "domain" },
    yaxis: { ...axis, title: { text: "true class" }, autorange: "reversed", scaleanchor: "x", constrain: "domain" },
    height: size,
    width: Math.min(place.clientWidth, size + 80),
  };
  return { data: [trace], layout };
}

function drawHistogram(technique) {
  const name = control(`histogram-${technique.name}`).value;
  const group = control(`histogram-group-${technique.name}`).value;
  const figure = technique.histograms[name][group];
  if (!figure) return empty("This group has no such histogram.");
  const trace = copy(figure.data[0]);
  // the root shows the tails, which hold few of the values
  trace.customdata = trace.z;
  trace.z = trace.z.map((row) => row.map((value) => (value === null ? null : Math.sqrt(value))));
  const top = Math.max(...trace.z.flat());
  const ticks = [0, 1, 5, 10, 25, 50, 100].filter((value) => Math.sqrt(value) <= top);
  Object.assign(trace, {
    colorscale: sequential(), hovertemplate: "step %{x}, near %{y:.3~g}: %{customdata:.2~f} % of the values<extra></extra>",
    colorbar: { thickness: 12, outlinewidth: 0, tickvals: ticks.map(Math.sqrt), ticktext: ticks.map((value) => `${value} %`) },
  });
  return { data: [trace], layout: { ...copy(figure.layout), height: 320 } };
}

const empty = (text) => ({ text });

/** The styles of the groups in a plot. */
function legend(name, shown) {
  const place = first(`[data-legend="${CSS.escape(name)}"]`);
  if (!place) return;
  if (shown.length > LEGEND) shown = []; // the table has them too
  place.replaceChildren(...[...new Set(shown)].map((group) => {
    const entry = document.createElement("span");
    entry.className = "entry";
    const mark = document.createElement("span");
    mark.className = "swatch";
    mark.innerHTML = swatch(group);
    const label = document.createElement("code");
    label.textContent = groups[group].label;
    entry.append(mark, label);
    return entry;
  }));
}

const drawers = {
  curves: () => { say("curves", LIMIT.curves); return drawCurves("curves", figures.curves[control("curves").value], LIMIT.curves); },
  cost: drawCost,
  forest: drawForest,
  parallel: drawParallel,
  classes: drawClasses,
  confusion: drawConfusion,
};
for (const technique of figures.techniques) {
  const name = `technique-${technique.name}`;
  drawers[name] = () => drawCurves(name, technique.curves[control(name).value], LIMIT.curves);
  drawers[`histogram-${technique.name}`] = () => drawHistogram(technique);
}

const inView = new Set();
const stale = new Set();

function draw(place) {
  stale.delete(place);
  const figure = drawers[place.dataset.plot](place);
  if (figure.text !== undefined || !figure.data.length) {
    Plotly.purge(place);
    const note = document.createElement("p");
    note.className = "empty";
    note.textContent = figure.text ?? "None of the selected groups has this.";
    place.replaceChildren(note);
    return;
  }
  first(".empty", place)?.remove();
  Plotly.react(place, figure.data, dress(figure.layout), CONFIG);
}

/** Draw anew what is in view, the rest when it comes into view. */
function refresh(names = null) {
  for (const place of every("[data-plot]")) if (!names || names.includes(place.dataset.plot)) stale.add(place);
  for (const place of [...stale]) if (inView.has(place)) draw(place);
}

const watcher = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (isIntersecting) inView.add(target); else inView.delete(target);
    if (isIntersecting && stale.has(target)) draw(target);
  }
}, { rootMargin: "300px" });

// The table

/** Sort by a column; numbers by size, missing values last either way. */
function sort(head) {
  const next = head.getAttribute("aria-sort") === "ascending" ? "descending" : head.getAttribute("aria-sort") === "descending" ? "ascending" : firstOrder(head);
  for (const other of every(".groups thead [aria-sort]")) other.setAttribute("aria-sort", other === head ? next : "none");
  const column = head.cellIndex;
  const sign = next === "ascending" ? 1 : -1;
  const compare = (a, b) => {
    const [left, right] = [a.cells[column].dataset.value, b.cells[column].dataset.value];
    if (left === "" || right === "") return (left === "") - (right === "");
    const [x, y] = [Number(left), Number(right)];
    return sign * (Number.isNaN(x) || Number.isNaN(y) ? (left > right) - (left < right) : x - y);
  };
  first(".groups tbody").append(...rows.slice().sort(compare));
}

/** The best first, where it is known what is best. */
function firstOrder(head) {
  const better = ["mean", "interval", "difference"].includes(head.dataset.column) && data.larger;
  return better || head.dataset.column === "n" ? "descending" : "ascending";
}

function filter() {
  const words = first('[data-action="filter"]').value.toLowerCase().split(/\s+/).filter(Boolean);
  for (const row of rows) row.hidden = !words.every((word) => row.dataset.search.includes(word));
  const left = rows.filter((row) => !row.hidden).length;
  first("[data-count]").textContent = left === rows.length ? `${left} groups` : `${left} of ${rows.length} groups`;
  showSelection();
}

/** Mark the chosen rows. */
function showSelection() {
  for (const row of rows) {
    const on = chosen.has(Number(row.dataset.group));
    row.classList.toggle("on", on);
    first("input", row).checked = on;
  }
  const listed = rows.filter((row) => !row.hidden);
  const on = listed.filter((row) => row.classList.contains("on")).length;
  const box = first('[data-action="all"]');
  box.checked = on > 0 && on === listed.length;
  box.indeterminate = on > 0 && on < listed.length;
  const count = chosen.size === 1 ? "1 group selected" : `${chosen.size} groups selected`;
  for (const button of every('[data-action="clear"]')) {
    button.disabled = !chosen.size;
    if (button.classList.contains("chosen")) Object.assign(button, { hidden: !chosen.size, textContent: `${count} ×`, title: "Show all groups again" });
  }
  first("[data-hint]").textContent = chosen.size ? `${count}: the plots show nothing else.` : "Select rows to see only these groups in all plots.";
}

function choose(change) {
  change();
  showSelection();
  const shown = visible(LIMIT.differences);
  for (const cell of every(".differences [data-group]")) cell.hidden = !shown.includes(Number(cell.dataset.group)) && Number(cell.dataset.group) !== data.baseline;
  for (const picture of every(".pictures [data-group]")) picture.hidden = chosen.size > 0 && !chosen.has(Number(picture.dataset.group));
  say("differences", LIMIT.differences);
  const matrix = control("confusion-group");
  if (matrix && chosen.size && !chosen.has(Number(matrix.value))) {
    const other = [...matrix.options].find((option) => chosen.has(Number(option.value)));
    if (other) matrix.value = other.value;
  }
  refresh();
}

const toggle = (group, on) => (on ? chosen.add(group) : chosen.delete(group));

for (const row of rows) {
  const group = Number(row.dataset.group);
  row.addEventListener("click", (event) => {
    if (String(getSelection()) && !event.target.matches("input")) return; // text was marked
    choose(() => toggle(group, event.target.matches("input") ? event.target.checked : !chosen.has(group)));
  });
}
for (const head of every(".groups thead [aria-sort]")) first("button", head).addEventListener("click", () => sort(head));
first('[data-action="filter"]').addEventListener("input", filter);
first('[data-action="all"]').addEventListener("change", (event) => choose(() => {
  for (const row of rows) if (!row.hidden) toggle(Number(row.dataset.group), event.target.checked);
}));
for (const button of every('[data-action="clear"]')) button.addEventListener("click", () => choose(() => chosen.clear()));
for (const box of every("[data-show]")) {
  box.addEventListener("change", () => {
    const head = first(`[data-column="${box.dataset.show}"]`);
    head.hidden = !box.checked;
    for (const row of rows) row.cells[head.cellIndex].hidden = !box.checked;
  });
}

// Controls of the plots

for (const choice of every("[data-control]")) {
  choice.addEventListener("change", () => {
    const place = first("[data-plot]", choice.closest("article, section").contains(choice) ? choice.closest("article, section") : document);
    const near = every("[data-plot]", choice.closest("article, section")).map((plot) => plot.dataset.plot);
    refresh(near.length ? near : [place.dataset.plot]);
  });
}
document.addEventListener("click", (event) => {
  for (const menu of every("details.menu[open]")) if (!menu.contains(event.target)) menu.open = false;
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") for (const menu of every("details.menu[open]")) { menu.open = false; first("summary", menu).focus(); }
});

// Theme

function setTheme(name) {
  document.documentElement.dataset.theme = name;
  paintSwatches();
  refresh();
}
first('[data-action="theme"]').addEventListener("click", () => {
  const name = theme() === "dark" ? "light" : "dark";
  try { localStorage.setItem(THEME, name); } catch { /* not remembered */ }
  setTheme(name);
});
systemTheme.addEventListener("change", () => setTheme(rememberedTheme() ?? (systemTheme.matches ? "dark" : "light")));

// Where in the page

const links = new Map(every(".links a").map((link) => [link.getAttribute("href").slice(1), link]));
function markPlace() {
  const passed = every("main > section").filter((section) => section.getBoundingClientRect().top < innerHeight / 3);
  const here = passed.length ? passed[passed.length - 1].id : "table";
  for (const [name, link] of links) if (name === here) link.setAttribute("aria-current", "true"); else link.removeAttribute("aria-current");
}
addEventListener("scroll", markPlace, { passive: true });
addEventListener("beforeprint", () => every("[data-plot]").forEach(draw));
let width = innerWidth;
addEventListener("resize", () => { // labels are cut to the width
  if (innerWidth !== width) { width = innerWidth; refresh(["forest", "classes", "confusion"]); }
});

paintSwatches();
choose(() => {});
markPlace();
for (const place of every("[data-plot]")) watcher.observe(place);
