// Everything is on the page without this: it shows one chart at a time and hides what is filtered out.
"use strict";
const all = (query) => Array.from(document.querySelectorAll(query));
const get = (id) => document.getElementById(id);
for (const tools of all(".script")) tools.hidden = false;
function choose(axis) {
  for (const figure of all("[data-chart]")) figure.hidden = figure.dataset.chart !== axis;
  for (const button of all("[data-axis]")) button.setAttribute("aria-pressed", button.dataset.axis === axis);
}
for (const button of all("[data-axis]")) button.addEventListener("click", () => choose(button.dataset.axis));
if (all("[data-axis]").length) choose(all("[data-axis]")[0].dataset.axis);
for (const item of all("[data-legend]")) {
  const arms = () => all(`[data-arm-place="${item.dataset.legend}"]`);
  const mark = (on) => { for (const arm of arms()) arm.classList.toggle("on", on); };
  for (const name of ["pointerenter", "focus"]) item.addEventListener(name, () => mark(true));
  for (const name of ["pointerleave", "blur"]) item.addEventListener(name, () => mark(false));
  item.addEventListener("click", () => {
    const shown = item.getAttribute("aria-pressed") !== "true";
    item.setAttribute("aria-pressed", shown);
    for (const arm of arms()) arm.style.display = shown ? "" : "none";
  });
}
function filter() {
  const text = get("find").value.trim().toLowerCase();
  let shown = 0;
  for (const run of all("[data-run]")) {
    run.hidden = !(run.dataset.run.includes(text) && ["arm", "status"].every(
      (name) => !get(name).value || run.dataset[name] === get(name).value));
    shown += !run.hidden;
  }
  const kind = get("attempts").value;
  for (const attempt of all("[data-kind]")) attempt.hidden = kind !== "" && attempt.dataset.kind !== kind;
  get("count").textContent = shown + " of " + all("[data-run]").length + " runs";
}
for (const id of ["find", "arm", "status", "attempts"]) get(id).addEventListener("input", filter);
filter();
