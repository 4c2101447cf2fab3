// Drawing, what tests have counted: results of each class, reliability, predictions and residuals

const CLASS_ROWS = 1000;

/** The results of each class of one group, as a table. */
function showClasses() {
  const place = first('[data-table="classes"]');
  if (!place) return;
  const task = control("classes-task").value;
  const group = Number(control("classes-group").value);
  const of = figures.support[task];
  const scores = Object.entries(figures.classes[task]);
  const at = scores[0][1].data[0].meta.rows.indexOf(group);
  if (at < 0) { place.replaceChildren(noted("This group has no such results for this task.")); return; }
  const table = document.createElement("table");
  const head = table.createTHead().insertRow();
  for (const text of [of.named, "samples", ...scores.map(([name]) => `${name}, %`)]) head.append(Object.assign(document.createElement("th"), { textContent: text }));
  const body = table.createTBody();
  of.classes.slice(0, CLASS_ROWS).forEach((name, index) => {
    const row = body.insertRow();
    row.append(Object.assign(document.createElement("th"), { textContent: name }));
    row.insertCell().textContent = of.counts[group][index].toLocaleString("en");
    for (const [, figure] of scores) {
      const value = figure.data[0].z[at][index];
      row.insertCell().textContent = value === null ? "–" : value.toFixed(1);
    }
  });
  place.replaceChildren(table);
}

function noted(text) {
  return Object.assign(document.createElement("p"), { className: "empty", textContent: text });
}

/** A line from corner to corner: where all points would lie. */
const ideal = (low, high) => ({ type: "scatter", mode: "lines", x: [low, high], y: [low, high], hoverinfo: "skip", line: { color: cssColour("quiet"), width: 1, dash: "dot" }, meta: {} });

function drawReliability() {
  const of = figures.reliability[control("reliability-task").value];
  const shown = visible(LIMIT.curves).filter((group) => of[group]);
  const most = Math.max(1, ...shown.flatMap((group) => of[group].n));
  const traces = shown.map((group) => ({
    type: "scatter", mode: "lines+markers", x: of[group].x, y: of[group].y, customdata: of[group].n, name: groups[group].short,
    line: { color: colour(group), width: 2, dash: groups[group].dash },
    marker: { color: colour(group), symbol: mark(group), size: of[group].n.map((count) => 5 + 11 * Math.sqrt(count / most)) },
    hovertemplate: "sure by %{x:.1f} %: %{y:.1f} % right, %{customdata} predictions<extra>%{fullData.name}</extra>",
    meta: { group, error: of[group].error },
  }));
  legend("reliability", shown, Object.fromEntries(shown.map((group) => [group, `: calibration error ${of[group].error.toFixed(1)} %`])));
  say("reliability", LIMIT.curves);
  const axis = { range: [0, 103], ticksuffix: " %" };
  const layout = {
    xaxis: { ...axis, title: { text: "probability that was predicted" } }, yaxis: { ...axis, title: { text: "share that is right" } },
    hovermode: "closest", height: 460,
  };
  return { data: traces.length ? [ideal(0, 100), ...traces] : [], layout };
}

/** The counts of one group and number, or a text. */
function tables() {
  const of = figures.numbers[control("numbers-task").value];
  const found = of.tables[control("numbers-group").value];
  return found?.[Number(control("numbers-column").value)] ?? found?.[0];
}

function noTables() {
  const all = figures.numbers[control("numbers-task").value].tables;
  return Object.keys(all).length ? "There is no room on this page for the tables of this group: compare fewer." : "Quantiles are predicted for this target and not the median, so that there is no one prediction.";
}

/** The middles of the cells between two ends, and one more beyond each. */
function middles(cells, low, high) {
  const width = (high - low) / (cells - 2);
  return Array.from({ length: cells }, (_, at) => low + (at - 0.5) * width);
}

/** A heat map of counts, whose root is shown, so that rare ones are seen. */
function heat(z, x, y, template) {
  return {
    type: "heatmap", x, y, z: z.map((row) => row.map((count) => (count ? Math.sqrt(count) : null))), customdata: z, colorscale: theme() === "dark" ? [[0, "#24486c"], [1, "#a5d3ff"]] : [[0, "#b5d3f0"], [1, "#0b3d73"]],
    showscale: false, hovertemplate: template, meta: { group: Number(control("numbers-group").value) },
  };
}

/** How many runs a table is of, where those of the others, in another range or scale, cannot be added. */
function ofRuns(some, all, what) {
  return some < all ? `, ${some} of ${all} runs, of one ${what}` : "";
}

function drawAgainst() {
  const found = tables();
  if (!found) return empty(noTables());
  const [low, high] = found.range;
  const at = middles(found.predicted_true.length, low, high);
  // rows are predictions, as is the vertical axis
  const map = heat(found.predicted_true, at, at, "true %{x:.4~g}, predicted %{y:.4~g}: %{customdata} samples<extra></extra>");
  const layout = { xaxis: { title: { text: `true${ofRuns(found.runs[0], found.of, "range")}` }, zeroline: false }, yaxis: { title: { text: "predicted" }, zeroline: false }, hovermode: "closest", height: 420 };
  return { data: [map, ideal(low, high)], layout };
}

function drawResiduals() {
  const found = tables();
  if (!found) return empty(noTables());
  const cells = found.residual_predicted.length;
  const x = middles(cells, ...found.range);
  const y = middles(cells, -found.residual, found.residual);
  const map = heat(found.residual_predicted, x, y, "predicted %{x:.4~g}, true less predicted %{y:.3~g}: %{customdata} samples<extra></extra>");
  const sums = found.residual_predicted.map((row) => row.reduce((sum, count) => sum + count, 0));
  const bars = {
    type: "bar", orientation: "h", x: sums, y, xaxis: "x2", marker: { color: cssColour("accent") }, width: y[1] - y[0],
    hovertemplate: "true less predicted %{y:.3~g}: %{x} samples<extra></extra>", meta: map.meta,
  };
  const zero = { type: "line", xref: "paper", x0: 0, x1: 1, y0: 0, y1: 0 };
  const layout = {
    xaxis: { title: { text: "predicted" }, domain: [0, 0.76], zeroline: false }, xaxis2: { title: { text: `samples${ofRuns(found.runs[1], found.of, "scale")}` }, domain: [0.8, 1], zeroline: false },
    yaxis: { title: { text: "residual: true − predicted" }, zeroline: false }, shapes: [zero], bargap: 0, hovermode: "closest", height: 420,
  };
  return { data: [map, bars], layout };
}

function drawCoverage() {
  const of = figures.numbers[control("numbers-task").value];
  if (!of.levels.length) return empty("No quantiles are predicted for this target.");
  const column = Math.min(Number(control("numbers-column").value) || 0, of.columns.length - 1);
  const shown = visible(LIMIT.curves).filter((group) => of.below[group]);
  const traces = shown.map((group) => ({
    type: "scatter", mode: "lines+markers", x: of.levels, y: of.below[group][column], name: groups[group].short,
    line: { color: colour(group), width: 2, dash: groups[group].dash }, marker: { color: colour(group), symbol: mark(group), size: 9 },
    hovertemplate: "quantile %{x:.3~g} %: %{y:.1f} % of the targets lie at or below it<extra>%{fullData.name}</extra>", meta: { group },
  }));
  legend("coverage", shown);
  const axis = { range: [0, 103], ticksuffix: " %" };
  const layout = { xaxis: { ...axis, title: { text: "quantile" } }, yaxis: { ...axis, title: { text: "targets at or below it" } }, hovermode: "closest", height: 380 };
  return { data: traces.length ? [ideal(0, 100), ...traces] : [], layout };
}

Object.assign(drawers, { reliability: drawReliability, against: drawAgainst, residuals: drawResiduals, coverage: drawCoverage });
