// Three rankings side by side, and lines that show where each document stands in the others.

import { el, counted, number, unseen } from "./dom.js";
import { hitLink, partsOf, scaleOf, splitBar } from "./results.js";

/** Columns from left to right: the sum stands between its two parts. */
export const COLUMNS = ["dense", "hybrid", "sparse"];

const NAMES = { dense: "Dense alone", hybrid: "Hybrid, the sum", sparse: "Sparse alone" };
const SVG = "http://www.w3.org/2000/svg";

/** Make the columns of three answers, given by mode. */
export function comparison(answers, state) {
  const ranks = Object.fromEntries(COLUMNS.map((mode) => [mode, new Map(answers[mode].hits.map((hit) => [hit.id, hit.rank]))]));
  const columns = COLUMNS.map((mode) => column(mode, answers[mode].hits, ranks, state));
  const lines = document.createElementNS(SVG, "svg");
  lines.setAttribute("class", "lines");
  lines.setAttribute("aria-hidden", "true");
  const grid = el("div", { class: "compare" }, columns);
  grid.prepend(lines);
  new ResizeObserver(() => grid.isConnected && drawLines(grid, lines)).observe(grid);
  for (const event of ["mouseover", "focusin"]) grid.addEventListener(event, ({ target }) => follow(grid, target.closest("[data-doc]")));
  grid.addEventListener("mouseleave", () => follow(grid, null));
  return el("div", {}, overlap(ranks), grid);
}

function column(mode, hits, ranks, state) {
  const scale = scaleOf(hits, mode);
  const others = COLUMNS.filter((other) => other !== mode);
  const cards = hits.map((hit) =>
    el("li", { class: "hit card-hit", "data-doc": hit.id },
      el("h3", {}, el("span", { class: "rank" }, unseen("Rank "), counted(hit.rank)), hitLink(hit, { ...state, doc: "" })),
      el("div", { class: "card-score" }, splitBar(partsOf(hit, mode), scale), number(hit.score, 3)),
      el("p", { class: "elsewhere" }, others.map((other) => elsewhere(other, ranks[other].get(hit.id), hit.rank)))));
  return el("section", { class: "column", "data-mode": mode, "aria-label": NAMES[mode] },
    el("h2", {}, NAMES[mode]), el("ol", { class: "hits", start: state.offset + 1 }, cards));
}

function elsewhere(mode, rank, here) {
  const move = rank === undefined ? "absent" : rank === here ? "same" : "moved";
  return el("span", { class: `place ${move}` }, `${mode} ${rank === undefined ? "—" : counted(rank)}`,
    rank === undefined ? unseen(" not on this page") : null);
}

/** One sentence on how far the parts agree with the sum. */
function overlap({ dense, hybrid, sparse }) {
  const ids = [...hybrid.keys()];
  const inDense = ids.filter((id) => dense.has(id)).length;
  const inSparse = ids.filter((id) => sparse.has(id)).length;
  const inNone = ids.filter((id) => !dense.has(id) && !sparse.has(id)).length;
  const none = inNone ? `, ${counted(inNone)} on neither, found by the sum alone` : "";
  return el("p", { class: "overlap" },
    `Of the ${counted(ids.length)} documents of the sum, ${counted(inDense)} are on the dense page and ${counted(inSparse)} on the sparse page${none}.`);
}

function drawLines(grid, lines) {
  const frame = grid.getBoundingClientRect();
  const columns = COLUMNS.map((mode) => grid.querySelector(`[data-mode=${mode}]`));
  const made = [];
  for (const [left, right] of [[columns[0], columns[1]], [columns[1], columns[2]]]) {
    if (left.getBoundingClientRect().top !== right.getBoundingClientRect().top) break; // one below the other
    const targets = new Map([...right.querySelectorAll(".hit")].map((card) => [card.dataset.doc, card]));
    for (const from of left.querySelectorAll(".hit")) {
      const to = targets.get(from.dataset.doc);
      if (to) made.push(line(from, to, frame, left.dataset.mode === "dense" ? "dense" : "terms"));
    }
  }
  lines.replaceChildren(...made);
}

function line(from, to, frame, part) {
  const [a, b] = [from.getBoundingClientRect(), to.getBoundingClientRect()];
  const [x1, x2] = [a.right - frame.left, b.left - frame.left];
  const [y1, y2] = [a, b].map((box) => box.top + box.height / 2 - frame.top);
  const middle = (x1 + x2) / 2;
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", `M${x1} ${y1}C${middle} ${y1} ${middle} ${y2} ${x2} ${y2}`);
  path.setAttribute("class", part);
  path.dataset.doc = from.dataset.doc;
  return path;
}

function follow(grid, card) {
  for (const element of grid.querySelectorAll("[data-doc]")) {
    element.classList.toggle("followed", Boolean(card) && element.dataset.doc === card.dataset.doc);
  }
  grid.classList.toggle("following", Boolean(card));
}
