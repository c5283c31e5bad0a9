// What stands in the place of hits: the welcome, that nothing matches, that something went wrong.

import { counted, el } from "./dom.js";
import { address } from "./state.js";

const LONGEST_EXAMPLE = 70;
/** Asked to find some documents of an index, whatever it is about, to make examples of. */
export const EXAMPLE_QUERIES = ["how does this work", "the causes and their effects", "people, places and time"];

/** How it works, and queries that this index can answer. */
export function welcome(examples, state) {
  const link = (text) => el("li", {}, el("a", { href: address({ ...state, q: text }), "data-example": text }, text));
  return el("div", { class: "welcome" },
    examples.length ? el("section", { "aria-labelledby": "examples" },
      el("h2", { id: "examples" }, "From this index, for a start"), el("ul", { class: "examples" }, examples.map(link))) : null,
    el("section", { "aria-labelledby": "how" },
      el("h2", { id: "how" }, "How it works"),
      el("ol", { class: "how" },
        el("li", {}, "A query becomes two things: a ", word("dense", "meaning"), " and a set of weighted ", word("terms", "words"), "."),
        el("li", {}, "A document's score is the plain sum of both parts. Open a result, and see every part of it."),
        el("li", {}, "Each answer is proven: no other document of the index scores more."))));
}

/** Make short queries of the first hits of answers: a title that says something, or a first sentence. */
export function examplesOf(answers) {
  const texts = answers.flatMap((answer) => answer.hits.slice(0, 1)).map(({ title, text }) => {
    const sentence = (text ?? "").trim().split(/(?<=[.!?])\s|\n\n/u)[0].replace(/\s+/gu, " ");
    return (title ?? "").trim().split(/\s+/u).length > 2 && !/[()]/u.test(title) ? title.trim() : sentence;
  });
  return [...new Set(texts.filter(Boolean).map(shortened))];
}

/** Nothing matches: say why, and the way back. */
export function noHits(state, total, clearFilter) {
  if (state.offset > 0) return card("No more documents", [`There are ${counted(total)}; this page begins behind the last one.`],
    el("a", { class: "button", href: address({ ...state, offset: 0 }), "data-offset": 0 }, "To the first page"));
  if (state.where.trim()) return card("No document matches the filter",
    ["Every document has a score, so only the filter ", el("code", {}, state.where), " can leave none."],
    el("button", { type: "button", class: "main", onclick: clearFilter }, "Search without the filter"));
  return card("This index is empty", ["Add documents with ", el("code", {}, "python cli.py index corpus.jsonl"), "."]);
}

/** What filters look like, in place of hits that a wrong one leaves out. */
export function filterHelp() {
  const row = (expression, meaning) => el("div", {}, el("dt", {}, el("code", {}, expression)), el("dd", {}, meaning));
  return el("section", { class: "card" }, el("h2", {}, "How filters are written"),
    el("dl", { class: "metadata" },
      row("year >= 2019", "numbers by size"), row('journal = "Nature"', "texts in quotes"),
      row('kind in ("class", "module")', "one of several"), row("doi exists", "the key is there"),
      row("not open = true and (year < 2000 or year > 2010)", "not, and, or, parentheses")));
}

/** Busy or gone: it will be tried again by itself. */
export function waitingNotice(error, retry) {
  const [title, text] = error.status === 0
    ? ["The server does not answer", "It may have been stopped, or the connection is lost. Trying again every few seconds."]
    : ["The server is busy", "Trying again in a moment; nothing needs to be done."];
  return card(title, [text], el("button", { type: "button", class: "main", onclick: retry }, "Try now"), "waiting");
}

/** An error that will not pass by itself. */
export function problem(error, retry, askKey) {
  if (error.status === 401) {
    return card("A key is needed", ["This server answers only with an API key."],
      el("button", { type: "button", class: "main", onclick: askKey }, "Enter a key"));
  }
  const title = error.status === 504 ? "That took too long" : error.status >= 500 ? "The server failed" : "This cannot be answered";
  return card(title, [error.message], el("button", { type: "button", class: "main", onclick: retry }, "Try again"));
}

function card(title, words, action = null, kind = "") {
  return el("section", { class: `card ${kind}`, role: kind === "waiting" ? "status" : "alert" }, el("h2", {}, title), el("p", {}, words), action);
}

const word = (part, text) => el("b", { class: `${part}-word` }, text);

function shortened(text) {
  const characters = Array.from(text);
  if (characters.length <= LONGEST_EXAMPLE) return text.replace(/[.]$/u, "");
  const cut = characters.slice(0, LONGEST_EXAMPLE).join("");
  return cut.slice(0, Math.max(cut.lastIndexOf(" "), LONGEST_EXAMPLE / 2));
}
