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
  if (!rows.length) return; // the page of one run
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
  for (const name of ["confusion-group", "classes-group", "numbers-group"]) {
    const one = control(name);
    if (!one || !chosen.size || chosen.has(Number(one.value))) continue;
    const other = [...one.options].find((option) => chosen.has(Number(option.value)));
    if (other) one.value = other.value;
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
first('[data-action="filter"]')?.addEventListener("input", filter);
first('[data-action="all"]')?.addEventListener("change", (event) => choose(() => {
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
    refresh(every("[data-plot]", choice.closest("article, section")).map((plot) => plot.dataset.plot));
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
  const here = passed.length ? passed[passed.length - 1].id : first("main > section").id;
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
