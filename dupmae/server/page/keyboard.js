// Keys: `/` to the box, arrows among results, Esc back, `?` for help.

import { byId } from "./dom.js";

/** Listen to keys; `actions` has `move(step)`, which goes from one opened document to another. */
export function listenToKeys(actions) {
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    const handled = document.querySelector("dialog[open]") ? inDialog(event, actions) : onPage(event);
    if (handled) event.preventDefault();
  });
}

function inDialog({ key, target }, { move }) {
  const step = { ArrowLeft: -1, ArrowRight: 1 }[key];
  if (!step || !byId("detail").open || isTyping(target)) return false;
  move(step);
  return true;
}

function onPage({ key, target }) {
  const box = byId("q");
  if (key === "Escape" && target !== box) return focus(box);
  if (target === box) return key === "ArrowDown" && focus(links()[0]);
  if (isTyping(target)) return false;
  if (key === "/") return focus(box, true);
  if (key === "?") {
    byId("help").showModal();
    return true;
  }
  return target.classList.contains("hit-link") && fromHit(key, target, box);
}

function fromHit(key, link, box) {
  const step = { ArrowUp: -1, ArrowDown: 1 }[key];
  if (step) {
    const all = links();
    return focus(all[all.indexOf(link) + step] ?? (step < 0 ? box : null));
  }
  const column = link.closest(".column");
  const other = { ArrowLeft: column?.previousElementSibling, ArrowRight: column?.nextElementSibling }[key];
  if (!other?.classList.contains("column")) return false;
  const place = [...column.querySelectorAll(".hit-link")].indexOf(link);
  return focus([...other.querySelectorAll(".hit-link")].at(place));
}

const links = () => [...document.querySelectorAll("#answer .hit-link")];

const isTyping = (element) => element.matches("input:not([type=checkbox], [type=radio]), select, textarea");

function focus(element, select = false) {
  if (!element) return false;
  element.focus();
  element.scrollIntoView({ block: "nearest" });
  if (select) element.select();
  return true;
}
