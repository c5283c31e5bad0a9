// The dialog of one document: its exact sum term by term, the proof, and its text.

import { documentPath, explainBody, Latest, patiently, request } from "./api.js";
import { byId, counted, decimal, el, number, plural } from "./dom.js";
import { proof } from "./proof.js";
import { splitBar } from "./results.js";
import { plainValues } from "./where.js";

const TERMS_SHOWN = 12;
const latest = new Latest();

/**
 * Show a document; `hits` are those of the page it was opened from, best first.
 *
 * `actions` has `close()`, `move(step)` to the hit before or after, and `failed(error)`.
 */
export function openDetail(state, hits, actions) {
  const dialog = byId("detail");
  const hit = hits.find((found) => found.id === state.doc);
  const body = el("div", { class: "detail-body", "aria-busy": "true" }, el("p", { class: "soft" }, "Taking the score apart…"));
  const focused = dialog.contains(document.activeElement) ? document.activeElement.getAttribute("aria-label") : null;
  dialog.replaceChildren(heading(hit?.title || state.doc, state.doc, hits, actions), body);
  if (!dialog.open) dialog.showModal();
  const button = [...dialog.querySelectorAll("button:enabled")].find((one) => one.getAttribute("aria-label") === focused);
  (button ?? byId("detail-title")).focus();
  dialog.scrollTop = 0;
  const mode = state.mode === "compare" ? "hybrid" : state.mode;
  const busy = (error) => body.replaceChildren(el("p", { class: "soft" }, `${error.message} Trying again…`));
  const ask = (signal) => Promise.all([
    request(documentPath(state, state.doc), { signal }),
    state.q.trim() ? request("/explain", { body: explainBody(state, mode, state.doc), signal }) : null,
  ]);
  latest.run((signal) => patiently(() => ask(signal), signal, busy), ([document, explained]) => {
    byId("detail-title").textContent = document.title || document.id;
    body.replaceChildren(...(explained ? [sum(explained), proof(explained, hits, mode), termTable(explained), lacking(explained)] : []), text(document));
    body.removeAttribute("aria-busy");
  }, (error) => {
    body.replaceChildren(el("p", { class: "problem", role: "alert" }, error.message));
    body.removeAttribute("aria-busy");
    actions.failed(error);
  });
}

/** Close the dialog, if it is open, and forget what it waits for. */
export function closeDetail() {
  latest.cancel();
  byId("detail").close();
}

function heading(title, id, hits, actions) {
  const place = hits.findIndex((hit) => hit.id === id);
  const step = (words, sign, by) => el("button", {
    type: "button", class: "tool", "aria-label": words, disabled: place < 0 || !hits[place + by], onclick: () => actions.move(by),
  }, sign);
  return el("div", { class: "detail-head" },
    el("div", { class: "detail-tools" },
      step("Result before", "←", -1), step("Result after", "→", 1),
      el("button", { type: "button", class: "tool", "aria-label": "Close", onclick: actions.close }, "×")),
    el("h2", { id: "detail-title", tabindex: "-1" }, title), el("p", { class: "detail-id" }, id));
}

function sum(explained) {
  const parts = weighted(explained);
  const scale = parts.reduce((all, part) => all + Math.abs(part), 1e-9);
  const part = (name, value, weight, raw) => el("span", { class: `sum-part ${name}` },
    number(value), el("small", {}, weight === 1 ? `${name} part` : `${name} part: ${decimal(weight, 1)} × ${decimal(raw)}`));
  return el("section", { class: "sum", "aria-label": "The sum" },
    el("p", { class: "equation" },
      el("span", { class: "sum-part total" }, number(explained.score), el("small", {}, `score, rank ${counted(explained.rank)}`)),
      el("span", { class: "sign" }, "="), part("dense", parts[0], explained.dense_weight, explained.dense),
      el("span", { class: "sign" }, "+"), part("terms", parts[1], explained.sparse_weight, explained.sparse)),
    splitBar(parts, scale));
}

const weighted = (explained) => [explained.dense_weight * explained.dense, explained.sparse_weight * explained.sparse];

function termTable(explained) {
  const weight = explained.sparse_weight;
  const dense = explained.dense_weight * explained.dense;
  const parts = explained.terms.map((term) => weight * term.product);
  const scale = Math.max(1e-9, Math.abs(dense), ...parts);
  const rows = explained.terms.map((term, i) => row(term.term, "terms", parts[i], scale, term));
  const [hidden, summary] = folded(rows, parts, scale);
  const table = el("table", { class: "terms-table" },
    el("caption", { class: "unseen" }, "What each part adds to the score"),
    el("thead", {}, el("tr", {}, ["part", "query", "document", "adds"].map((name) => el("th", { scope: "col" }, name)), el("td"))),
    el("tbody", {}, row("dense part", "dense", dense, scale), rows, summary),
    el("tfoot", {}, el("tr", {}, el("th", { scope: "row", colspan: "3" }, "score"), el("td", {}, number(explained.score)), el("td"))));
  const section = el("section", { "aria-labelledby": "sum-title" }, el("h3", { id: "sum-title" }, "Part by part"), table);
  if (weight !== 1) section.append(el("p", { class: "soft" }, `A term adds ${decimal(weight, 2)} × query × document.`));
  if (hidden.length) section.append(unfolding(hidden, summary));
  return section;
}

function row(name, part, value, scale, term = null) {
  return el("tr", { class: `row-${part}`, vars: { share: Math.abs(value) / scale } },
    el("th", { scope: "row" }, name),
    term ? el("td", {}, number(term.query_weight)) : el("td", { class: "soft" }, "·"),
    term ? el("td", {}, number(term.document_weight)) : el("td", { class: "soft" }, "·"),
    el("td", { class: "adds" }, number(value)),
    el("td", { class: "row-bar", "aria-hidden": "true" }, el("span")));
}

/** Hide the smallest rows behind one that holds their sum, so that the column always adds up. */
function folded(rows, parts, scale) {
  if (rows.length <= TERMS_SHOWN + 2) return [[], null];
  const hidden = rows.slice(TERMS_SHOWN);
  hidden.forEach((element) => element.toggleAttribute("hidden", true));
  const rest = parts.slice(TERMS_SHOWN).reduce((all, part) => all + part, 0);
  return [hidden, row(`${counted(hidden.length)} smaller terms`, "terms", rest, scale)];
}

function unfolding(hidden, summary) {
  return el("button", { type: "button", class: "plain", onclick: ({ target }) => {
    hidden.forEach((element) => element.toggleAttribute("hidden", false));
    summary.remove();
    target.remove();
  } }, `Show all ${counted(hidden.length + TERMS_SHOWN)} terms`);
}

function lacking({ missing, sparse_weight: weight }) {
  if (!missing.length || weight === 0) return "";
  const chips = missing.slice(0, TERMS_SHOWN).map((term) => el("li", {}, term.term, " ", el("span", { class: "soft" }, decimal(term.query_weight, 3))));
  const more = missing.length - chips.length;
  return el("section", { "aria-labelledby": "missing-title" },
    el("h3", { id: "missing-title" }, `${plural(missing.length, "query term")} it lacks`),
    el("ul", { class: "chips" }, chips, more > 0 ? el("li", { class: "soft" }, `${counted(more)} lighter ones`) : null));
}

function text(document) {
  const values = [...plainValues(document.metadata ?? {})];
  const metadata = values.map(([key, value]) => el("div", {}, el("dt", {}, key), el("dd", {}, String(value))));
  return el("section", { "aria-labelledby": "text-title" },
    el("h3", { id: "text-title" }, "Document"),
    metadata.length ? el("dl", { class: "metadata" }, metadata) : null,
    el("div", { class: "text" }, document.text || "This document has a title only."));
}
