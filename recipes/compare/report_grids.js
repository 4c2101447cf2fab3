// Drawing, many cells: hyperparameters, classes, confusion matrices, techniques

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
  if (!figure) return empty("This target has no such score.");
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
  const most = colours.flat().reduce((top, value) => Math.max(top, Math.abs(value ?? 0)), 1e-9);
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
function legend(name, shown, further = {}) {
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
    label.textContent = groups[group].label + (further[group] ?? "");
    entry.append(mark, label);
    return entry;
  }));
}

const drawers = {
  curves: () => { say("curves", LIMIT.curves); return drawCurves("curves", figures.curves[control("curves").value], LIMIT.curves); },
  cost: drawCost,
  forest: drawForest,
  search: drawSearch,
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
  showClasses();
}

const watcher = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (isIntersecting) inView.add(target); else inView.delete(target);
    if (isIntersecting && stale.has(target)) draw(target);
  }
}, { rootMargin: "300px" });
