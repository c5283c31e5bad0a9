// The list of hits: each with its score as a bar of two parts, and what its snippet owes to terms.

import { counted, decimal, el, number, plural, unseen } from "./dom.js";
import { address, WEIGHTS } from "./state.js";
import { plainValues } from "./where.js";

const MOST_CHIPS = 5;
const CHIP_LENGTH = 48;
const LEAST_MARKED = 0.1; // of the heaviest on the page: feedback gives a query many light terms

/** Make the list of an answer's hits. */
export function hitList(answer, state) {
  const scale = scaleOf(answer.hits, state.mode);
  const heaviest = heaviestHighlight(answer.hits);
  const rows = answer.hits.map((hit) => hitRow(hit, state, scale, heaviest));
  return el("ol", { class: "hits", start: answer.offset + 1 }, rows);
}

/** What a full bar stands for: the largest score of a page. */
export function scaleOf(hits, mode) {
  return Math.max(1e-9, ...hits.map((hit) => partsOf(hit, mode).reduce((sum, part) => sum + Math.abs(part), 0)));
}

/** A hit's two parts as they count in a mode. */
export function partsOf(hit, mode) {
  const [dense, sparse] = WEIGHTS[mode];
  return [dense * (hit.dense ?? 0), sparse * (hit.sparse ?? 0)];
}

/** A bar that is split into dense and terms part; a negative part is hatched. */
export function splitBar(parts, scale) {
  const pieces = parts.map((part, i) => (part === 0 ? null
    : el("span", { class: `${i ? "terms" : "dense"}${part < 0 ? " below" : ""}`, vars: { share: Math.abs(part) / scale } })));
  return el("span", { class: "bar", "aria-hidden": "true" }, pieces);
}

/** The numbers under a bar. */
export function partsText([dense, terms]) {
  return el("p", { class: "parts" },
    unseen("dense part "), el("span", { class: "dense-word" }, decimal(dense, 3)), " + ",
    unseen("terms part "), el("span", { class: "terms-word" }, decimal(terms, 3)));
}

/** A link to a hit's exact sum; a click is taken up by the page, a new tab finds it by its address. */
export function hitLink(hit, state) {
  return el("a", { class: "hit-link", href: address({ ...state, doc: hit.id }), "data-doc": hit.id }, breakable(hit.title || hit.id));
}

/** A text that may also break behind the signs in names, such as those of functions. */
function breakable(text) {
  return text.split(/(?<=[./(,])(?=\w)/u).flatMap((piece, i) => (i ? [el("wbr"), piece] : [piece]));
}

/** A text with its highlights marked, the stronger the more their terms add to the score. */
export function marked(snippet, heaviest) {
  const characters = Array.from(snippet.text); // ranges count code points, strings of JavaScript do not
  const pieces = [snippet.before ? "… " : ""];
  let reached = 0;
  for (const { start, end, weight } of [...snippet.highlights].sort((a, b) => a.start - b.start)) {
    if (start < reached || weight < LEAST_MARKED * heaviest) continue;
    pieces.push(characters.slice(reached, start).join(""));
    pieces.push(el("mark", { vars: { weight: weight / heaviest } }, characters.slice(start, end).join("")));
    reached = end;
  }
  pieces.push(characters.slice(reached).join(""), snippet.after ? " …" : "");
  return pieces;
}

/** The line above the hits: how many, that they are proven, how long it took. */
export function statusText(answer) {
  const { hits, documents, offset, timing } = answer;
  const rest = documents - offset - hits.length;
  const shown = offset ? `${counted(offset + 1)} to ${counted(offset + hits.length)}` : `Best ${counted(hits.length)}`;
  const proof = el("span", { class: answer.proven ? "proven" : "unproven" },
    answer.proven ? `Proven: ${rest > 0 ? `none of the other ${counted(rest)} scores more` : "these are all"}` : "Not proven");
  return [el("span", {}, `${shown} of ${plural(documents, "document")}`), proof, el("span", {}, `${Math.round(timing.total_ms)} ms`)];
}

/** What the two colours mean. */
export function legend() {
  return el("p", { class: "legend" },
    el("span", { class: "swatch dense" }), "dense part", el("span", { class: "swatch terms" }), "terms part");
}

/** Links to the pages before and after; null if there is one page. */
export function paging(answer, state) {
  const { offset, k } = state;
  const last = offset + answer.hits.length;
  if (offset === 0 && last >= answer.documents) return null;
  const link = (text, to, rel) => el("a", { rel, href: address({ ...state, offset: to, doc: "" }), "data-offset": to }, text);
  return el("nav", { class: "paging", "aria-label": "Pages" },
    offset > 0 ? link("← Better", Math.max(0, offset - k), "prev") : el("span"),
    el("span", { class: "soft" }, `${counted(offset + 1)} to ${counted(last)}`),
    last < answer.documents ? link("Further →", offset + k, "next") : el("span"));
}

function hitRow(hit, state, scale, heaviest) {
  const parts = partsOf(hit, state.mode);
  return el("li", { class: "hit", "data-doc": hit.id },
    el("div", { class: "hit-main" },
      el("h2", {}, el("span", { class: "rank" }, unseen("Rank "), counted(hit.rank)), hitLink(hit, state)),
      hit.snippet && el("p", { class: "snippet" }, marked(hit.snippet, heaviest)),
      chips(hit)),
    el("div", { class: "hit-score" },
      el("p", { class: "score" }, unseen("Score "), number(hit.score)), splitBar(parts, scale), partsText(parts)));
}

function chips(hit) {
  const values = [...plainValues(hit.metadata ?? {})].filter(([, value]) => value !== "" && value !== null);
  const shown = values.slice(0, MOST_CHIPS).map(([key, value]) =>
    el("li", {}, el("span", { class: "chip-key" }, key), " ", clipped(String(value))));
  const more = values.length - shown.length;
  const id = hit.title ? [el("li", { class: "chip-id" }, unseen("id "), clipped(hit.id))] : [];
  const passage = hit.passage ? el("li", { class: "soft" }, `passage ${counted(hit.passage.number)}`) : null;
  return el("ul", { class: "chips" }, id, passage, shown, more > 0 ? el("li", { class: "soft" }, `${more} more`) : null);
}

function heaviestHighlight(hits) {
  return Math.max(1e-9, ...hits.flatMap((hit) => (hit.snippet?.highlights ?? []).map((range) => range.weight)));
}

function clipped(text) {
  const characters = Array.from(text);
  return characters.length > CHIP_LENGTH ? `${characters.slice(0, CHIP_LENGTH).join("")}…` : text;
}
