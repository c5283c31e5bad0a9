// Checkboxes made of metadata: keys found in the hits or named by the user, values counted by the
// server. What is checked stands in the filter expression and nowhere else.

import { ApiError, indexOf, Latest, request } from "./api.js";
import { byId, counted, el, unseen } from "./dom.js";
import { pickedKeys, pickedValues, plainValues, withPick, withPicks } from "./where.js";

const KEYS_SHOWN = 3;
const VALUES_SHOWN = 8;
const VALUES_UNFOLDED = 60;
const LONGEST_VALUE = 60;

/** The panel of facets; `change` is called with what makes a patch of the state that is then at hand. */
export class Facets {
  #change;
  #latest = new Latest();
  #counted = ""; // what was counted last, so that typing a query counts nothing anew
  #index = null;
  #seen = new Map(); // key → values found in hits
  #unfolded = new Set();
  #chosen = [];

  constructor(change) {
    this.#change = change;
  }

  /** Show the facets of a state whose answer has these hits. */
  update(state, hits) {
    this.#learn(state, hits);
    const keys = [...new Set([...(state.facets ?? this.#chosen), ...pickedKeys(state.where)])];
    const asked = JSON.stringify([state.index, state.where, keys]);
    if (asked === this.#counted) return;
    this.#latest.run((signal) => this.#count(state, keys, signal), (counts) => {
      this.#counted = asked;
      this.#show(state, keys, counts);
    }, (error) => this.#failed(error, state));
  }

  /** Remember the keys of the hits, and choose those to show once for each index. */
  #learn(state, hits) {
    if (this.#index !== state.index) {
      this.#index = state.index;
      this.#seen.clear();
      this.#chosen = [];
    }
    for (const hit of hits) {
      for (const [key, value] of plainValues(hit.metadata ?? {})) {
        if (!this.#seen.has(key)) this.#seen.set(key, []);
        this.#seen.get(key).push(value);
      }
    }
    if (!this.#chosen.length) this.#chosen = telling(this.#seen);
  }

  /** Count values; for a key with checked ones as if none were, so that others can be added. */
  async #count(state, keys, signal) {
    const where = state.where.trim();
    const groups = new Map();
    for (const key of keys) {
      const without = pickedValues(where, key).size ? withPicks(where, key, []) : where;
      groups.set(without, [...(groups.get(without) ?? []), key]);
    }
    const asks = [...groups].map(([filter, facets]) =>
      request("/facets", { body: { facets, where: filter || null, index: indexOf(state) }, signal }));
    return Object.assign({}, ...(await Promise.all(asks)).map((answer) => answer.facets));
  }

  #show(state, keys, counts) {
    const focused = document.activeElement?.dataset?.pick;
    const groups = keys.map((key) => this.#group(state, key, counts[key] ?? [], keys));
    byId("facets").replaceChildren(el("h2", {}, "Filters"), ...groups, this.#adder(state, keys));
    if (focused) [...byId("facets").querySelectorAll("[data-pick]")].find((box) => box.dataset.pick === focused)?.focus();
  }

  #group(state, key, values, keys) {
    const picked = pickedValues(state.where, key);
    const most = this.#unfolded.has(key) ? VALUES_UNFOLDED : VALUES_SHOWN;
    const shown = values.filter(({ value }, i) => i < most || picked.has(JSON.stringify(value)));
    const rows = shown.map(({ value, documents }) => this.#value(key, value, documents, picked));
    const hidden = values.length - shown.length;
    const more = this.#unfolded.has(key)
      ? el("p", { class: "soft" }, `${counted(hidden)} more; write them in the filter`)
      : el("button", { type: "button", class: "plain", onclick: () => this.#unfold(key, state) }, `${counted(hidden)} more`);
    return el("fieldset", { class: "facet" },
      el("legend", {}, el("span", {}, key)),
      el("button", { type: "button", class: "clear", "aria-label": `Remove the facet ${key}`,
        onclick: () => this.#remove(key, keys) }, "×"),
      rows.length ? rows : el("p", { class: "soft" }, "no values"),
      hidden > 0 ? more : null);
  }

  #value(key, value, documents, picked) {
    const json = JSON.stringify(value);
    const text = typeof value === "string" ? value || "“”" : json;
    const change = ({ target }) => this.#change(({ where }) => ({ where: withPick(where, key, json, target.checked), offset: 0 }));
    return el("label", { class: "facet-value" },
      el("input", { type: "checkbox", checked: picked.has(json), "data-pick": `${key} = ${json}`, onchange: change }),
      el("span", { class: "facet-text", title: text }, text),
      el("span", { class: "facet-count" }, counted(documents), unseen(" documents")));
  }

  #remove(key, keys) {
    const patch = { facets: keys.filter((other) => other !== key) };
    this.#change(({ where }) =>
      pickedValues(where, key).size ? { ...patch, where: withPicks(where, key, []), offset: 0 } : patch);
  }

  #unfold(key, state) {
    this.#unfolded.add(key);
    this.#counted = "";
    this.update(state, []);
  }

  #adder(state, keys) {
    const known = [...this.#seen.keys()].filter((key) => !keys.includes(key));
    const input = el("input", { type: "text", id: "facet-key", list: "facet-keys", placeholder: "another key", spellcheck: "false", autocapitalize: "none" });
    const add = (event) => {
      if (event.type === "keydown" && event.key !== "Enter") return;
      const key = input.value.trim();
      if (event.type === "input" && !known.includes(key)) return; // chosen from the list, or still typed
      event.preventDefault();
      if (key && !keys.includes(key)) this.#change(() => ({ facets: [...keys, key] }));
    };
    input.addEventListener("keydown", add);
    input.addEventListener("input", add);
    return el("div", { class: "facet-add" }, el("label", { for: "facet-key" }, "Count another key"), input,
      el("datalist", { id: "facet-keys" }, known.map((key) => el("option", { value: key }))),
      el("p", { id: "facet-error", role: "alert" }));
  }

  /** Leave the panel as it is, but for the reason; the hits show that the server has trouble. */
  #failed(error, state) {
    if (!(error instanceof ApiError) || error.passes) return;
    if (!byId("facet-error")) this.#show(state, [], {});
    byId("facet-error").textContent = error.message;
  }
}

/** Choose keys whose values repeat among hits: they divide documents, as titles and links do not. */
function telling(seen) {
  const repeats = (values) => values.length - new Set(values.map((value) => JSON.stringify(value))).size;
  return [...seen]
    .filter(([, values]) => repeats(values) > 0 && values.every((value) => String(value).length <= LONGEST_VALUE))
    .sort(([, a], [, b]) => repeats(b) - repeats(a))
    .slice(0, KEYS_SHOWN)
    .map(([key]) => key);
}
