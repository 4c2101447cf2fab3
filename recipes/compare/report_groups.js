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
