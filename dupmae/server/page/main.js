// The page: what is typed, clicked and addressed becomes a state; a state becomes a question, its
// answer becomes what is shown.

import { indexOf, Latest, patiently, request, searchBody } from "./api.js";
import { comparison, COLUMNS } from "./compare.js";
import { closeDetail, openDetail } from "./detail.js";
import { byId, counted, el } from "./dom.js";
import { Facets } from "./facets.js";
import { askKey } from "./key.js";
import { listenToKeys } from "./keyboard.js";
import { EXAMPLE_QUERIES, examplesOf, filterHelp, noHits, problem, waitingNotice, welcome } from "./notice.js";
import { hitList, legend, paging, statusText } from "./results.js";
import { address, asksTheSame, readState } from "./state.js";

const TYPING_PAUSE = 150;
const FILTER_PAUSE = 500; // an expression is wrong until it is finished
const BUSY_AFTER = 200; // shorter waits are not shown: they would only flicker

const latest = new Latest();
const facets = new Facets((patch) => go({ ...patch(state), doc: "" }));
let state = readState(location.search);
let hits = []; // those shown, for the dialog
let typing = null; // the timer of what is being typed
let isTyped = false; // whether the address at hand came of typing, so that more typing replaces it
let busy = null;

/** Go to a changed state, as a new entry of the history or in place of the one at hand. */
function go(patch, { replace = false, opened = false } = {}) {
  const before = state;
  state = { ...state, ...takeTyped(), ...patch };
  isTyped = false;
  history[replace ? "replaceState" : "pushState"]({ opened }, "", address(state));
  show(before);
}

function show(before) {
  showControls();
  const asks = before === null || !asksTheSame(before, state);
  if (asks) ask();
  else if (before.facets !== state.facets && state.q.trim()) facets.update(state, hits);
  if (!asks || !state.doc || !state.q.trim()) showDocument(); // else once the answer is there
}

function showControls() {
  document.title = state.q.trim() ? `${state.q.trim()} · DupMAE Search` : "DupMAE Search";
  for (const id of ["q", "where"]) {
    if (typing === null && byId(id).value !== state[id]) byId(id).value = state[id];
  }
  document.querySelector(`[name=mode][value=${state.mode}]`).checked = true;
  if (![...byId("k").options].some((option) => Number(option.value) === state.k)) byId("k").append(el("option", {}, String(state.k)));
  byId("k").value = String(state.k);
  byId("index").value = state.index || byId("index").options[0]?.value;
  byId("where-clear").hidden = !state.where;
  byId("home").href = address({ ...readState(""), index: state.index });
}

function showDocument() {
  if (!state.doc) return closeDetail();
  return openDetail(state, hits, { close: closeDocument, move: moveDocument, failed: (error) => error.status === 401 && askKey(showDocument) });
}

/** Go back to where the document was opened, or, if its address was given, to its page. */
function closeDocument() {
  if (history.state?.opened) history.back();
  else go({ doc: "" }, { replace: true });
}

function moveDocument(step) {
  const next = hits[hits.findIndex((hit) => hit.id === state.doc) + step];
  if (next && state.doc) go({ doc: next.id }, { replace: true, opened: Boolean(history.state?.opened) });
}

function ask() {
  byId("notice").replaceChildren();
  if (!state.q.trim()) return askWelcome();
  document.body.dataset.view = state.mode === "compare" ? "compare" : "answer";
  setBusy(true);
  const asked = state;
  const modes = asked.mode === "compare" ? COLUMNS : [asked.mode];
  const search = (signal) => Promise.all(modes.map((mode) => request("/search", { body: searchBody(asked, mode), signal })));
  return latest.run((signal) => patiently(() => search(signal), signal, showWaiting), (answers) => {
    setBusy(false);
    showAnswers(asked, Object.fromEntries(modes.map((mode, i) => [mode, answers[i]])));
  }, showProblem);
}

function showAnswers(asked, answers) {
  showFilterError("");
  byId("notice").replaceChildren();
  const main = answers[asked.mode] ?? answers.hybrid;
  hits = main.hits;
  facets.update(asked, hits);
  if (!hits.length) {
    byId("status").replaceChildren("No documents");
    byId("answer").replaceChildren(noHits(asked, main.documents, () => go({ where: "", offset: 0 })));
  } else {
    byId("status").replaceChildren(...statusText(main), legend());
    const list = asked.mode === "compare" ? comparison(answers, asked) : hitList(main, asked);
    byId("answer").replaceChildren(list, paging(main, asked) ?? "");
  }
  if (state.doc) showDocument();
}

function askWelcome() {
  hits = [];
  setBusy(false);
  showFilterError("");
  document.body.dataset.view = "welcome";
  byId("status").replaceChildren();
  const body = { queries: EXAMPLE_QUERIES, k: 1, snippets: false, texts: true, index: indexOf(state) };
  const showExamples = (examples) => byId("answer").replaceChildren(welcome(examples, state));
  if (!byId("answer").querySelector(".welcome")) showExamples([]);
  return latest.run((signal) => patiently(() => request("/search", { body, signal }), signal, showWaiting), ({ answers }) => {
    byId("notice").replaceChildren();
    showExamples(examplesOf(answers));
  }, (error) => error.status === 401 && showProblem(error));
}

function showWaiting(error) {
  byId("notice").replaceChildren(waitingNotice(error, ask));
}

function showProblem(error) {
  setBusy(false);
  byId("notice").replaceChildren();
  showFilterError(error.code === "bad_filter" ? error.message : "");
  if (error.code === "bad_filter") {
    if (!hits.length) byId("answer").replaceChildren(filterHelp());
    return;
  }
  hits = [];
  byId("status").replaceChildren();
  const key = () => askKey(reload);
  byId("answer").replaceChildren(problem(error, ask, key));
  if (error.status === 401) key();
}

function showFilterError(message) {
  const [, place, wrong] = /goes wrong at character (\d+): (.*)$/s.exec(message) ?? [];
  byId("where-error").textContent = wrong ? `Not a filter yet. At character ${place}: ${wrong}.` : message;
  byId("where").setAttribute("aria-invalid", String(Boolean(message)));
  byId("results").classList.toggle("outdated", Boolean(message) && hits.length > 0);
}

function setBusy(isBusy) {
  clearTimeout(busy);
  byId("results").setAttribute("aria-busy", String(isBusy));
  if (isBusy) busy = setTimeout(() => document.body.classList.add("busy"), BUSY_AFTER);
  else document.body.classList.remove("busy");
}

/** Take up what was typed after a pause; all of one spell of typing is one entry of the history. */
function waitForMore(pause) {
  clearTimeout(typing);
  typing = setTimeout(() => {
    go({}, { replace: isTyped });
    isTyped = true;
  }, pause);
}

/** Take up what was typed at once; more typing is another entry. */
function finishTyping() {
  if (typing !== null) go({}, { replace: isTyped });
  isTyped = false;
}

/** Return as a patch what was typed and not yet taken up. */
function takeTyped() {
  if (typing === null) return {};
  clearTimeout(typing);
  typing = null;
  return { q: byId("q").value, where: byId("where").value, offset: 0, doc: "" };
}

async function loadIndexes() {
  const { indexes } = await request("/indexes");
  const options = indexes.map(({ name, documents }) => el("option", { value: name }, `${name} (${counted(documents)})`));
  byId("index").replaceChildren(...options);
  byId("index-choice").hidden = indexes.length < 2;
  byId("index-name").textContent = indexes.length === 1 ? `${indexes[0].name} · ${counted(indexes[0].documents)} documents` : "";
  showControls();
}

/** Begin anew with the state at hand: at first, and with a new key. */
function reload() {
  loadIndexes().catch(() => {}); // the hits tell what is wrong
  show(null);
}

function takeClick(event) {
  const link = event.target.closest("a[data-doc], a[data-offset], a[data-example], #home");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
  event.preventDefault();
  const { doc, offset, example } = link.dataset;
  if (doc !== undefined) go({ doc }, { opened: true });
  else if (example !== undefined) go({ q: example });
  else if (link.id === "home") go({ ...readState(""), index: state.index });
  else {
    go({ offset: Number(offset), doc: "" });
    byId("results").focus();
    scrollTo(0, 0);
  }
}

/** Whether a click hit the backdrop of a dialog; keys make clicks without a place. */
function isOutside(event, dialog) {
  const { left, right, top, bottom } = dialog.getBoundingClientRect();
  return event.target === dialog && !(event.clientX >= left && event.clientX < right && event.clientY >= top && event.clientY < bottom);
}

function listen() {
  byId("search").addEventListener("submit", (event) => {
    event.preventDefault();
    finishTyping();
  });
  byId("q").addEventListener("input", () => waitForMore(TYPING_PAUSE));
  byId("where").addEventListener("input", () => waitForMore(FILTER_PAUSE));
  byId("where").addEventListener("change", finishTyping);
  byId("where-clear").addEventListener("click", () => go({ where: "", offset: 0 }));
  byId("k").addEventListener("change", () => go({ k: Number(byId("k").value), offset: 0 }));
  byId("index").addEventListener("change", () => go({ ...readState(""), q: state.q, index: byId("index").value }));
  for (const radio of document.getElementsByName("mode")) radio.addEventListener("change", () => go({ mode: radio.value, offset: 0 }));
  byId("facets-button").addEventListener("click", () => {
    const isOpen = document.body.classList.toggle("facets-open");
    byId("facets-button").setAttribute("aria-expanded", String(isOpen));
  });
  document.addEventListener("click", takeClick);
  addEventListener("popstate", () => {
    takeTyped(); // and leave it: the way back is wanted
    const before = state;
    state = readState(location.search);
    show(before);
  });
  listenToKeys({ move: moveDocument });
}

function listenInDialogs() {
  byId("help-button").addEventListener("click", () => byId("help").showModal());
  for (const button of document.querySelectorAll("[data-close]")) button.addEventListener("click", () => button.closest("dialog").close());
  byId("detail").addEventListener("cancel", (event) => {
    event.preventDefault();
    closeDocument();
  });
  for (const dialog of document.querySelectorAll("dialog")) {
    dialog.addEventListener("click", (event) => {
      if (isOutside(event, dialog) && dialog.dispatchEvent(new Event("cancel", { cancelable: true }))) dialog.close();
    });
  }
}

listen();
listenInDialogs();
reload();
if (!state.doc) byId("q").focus();
