// Why no document is missing from an answer: in a sentence, and as places on a line of scores.

import { counted, decimal, el, plural } from "./dom.js";

/** Explain the proof of the answer that a document was taken from; `hits` are those shown with it. */
export function proof(explained, hits, mode) {
  return el("section", { class: "proof", "aria-labelledby": "proof-title" },
    el("h3", { id: "proof-title" }, "Proof"),
    el("p", {}, bounded(explained), " ", placed(explained, hits)),
    explained.bound === null ? null : scoreLine(explained, mode === "hybrid" || hits.length ? hits : []));
}

function bounded({ bound, depth, documents, k, kth_score: kth }) {
  if (bound === null) return `All ${plural(documents, "document")} were scored, so none can be missing.`;
  const last = Math.min(k, documents);
  const verdict = bound <= kth ? "so none can be missing" : "so this answer is not proven";
  return `Searched to depth ${counted(depth)}: a document that was not scored exactly scores at most ${decimal(bound)}, `
    + `and rank ${counted(last)} has ${decimal(kth)}, ${verdict}.`;
}

function placed({ rank, documents, score, k, kth_score: kth, gap }, hits) {
  const here = `This is rank ${counted(rank)} of ${counted(documents)}`;
  if (rank > k) return `${here}, ${decimal(gap)} below rank ${counted(k)}.`;
  const next = hits.find((hit) => hit.rank === rank + 1);
  const ahead = [];
  if (next) ahead.push(`${decimal(score - next.score)} ahead of rank ${counted(rank + 1)}`);
  if (rank + 1 < k && k <= documents) ahead.push(`${decimal(score - kth)} ahead of rank ${counted(k)}`);
  return ahead.length ? `${here}, ${ahead.join(" and ")}.` : `${here}.`;
}

function scoreLine({ bound, score, k, kth_score: kth, documents }, hits) {
  const scores = [bound, kth, score, ...hits.map((hit) => hit.score)];
  const [low, high] = [Math.min(...scores), Math.max(...scores)];
  const room = (high - low || 1) * 0.3; // to the left of the bound lies everything else
  const at = (value) => (value - low + room) / (high - low + room * 1.1);
  const tick = (value, name) => el("span", { class: `tick ${name}`, vars: { at: at(value) } });
  const label = (value, name, words) =>
    el("span", { class: `tick-label ${name} ${at(value) > 0.6 ? "leftwards" : "rightwards"}`, vars: { at: at(value) } }, words);
  return el("div", { class: "score-line", "aria-hidden": "true" },
    el("span", { class: "unread", vars: { at: at(bound) } }),
    hits.map((hit) => tick(hit.score, "hit-tick")), tick(kth, "kth"), tick(score, "this"),
    label(score, "this", `this ${decimal(score, 3)}`),
    label(bound, "bound", `all others ≤ ${decimal(bound, 3)}`),
    label(kth, "kth", `rank ${counted(Math.min(k, documents))}: ${decimal(kth, 3)}`));
}
