// What the page shows, as its address says it; every view has an address of its own.

/** The weights of dense and sparse part in each mode; `compare` shows all three. */
export const WEIGHTS = { hybrid: [1, 1], dense: [1, 0], sparse: [0, 1] };

const DEFAULTS = { q: "", where: "", k: 10, offset: 0, mode: "hybrid", index: "", facets: null, doc: "" };

/** Read an address's query; what makes no sense there is taken for not given. */
export function readState(search) {
  const given = new URLSearchParams(search);
  const mode = given.get("mode");
  return {
    q: given.get("q") ?? DEFAULTS.q,
    where: given.get("where") ?? DEFAULTS.where,
    k: whole(given.get("k"), 1) ?? DEFAULTS.k,
    offset: whole(given.get("offset"), 0) ?? DEFAULTS.offset,
    mode: mode === "compare" || Object.hasOwn(WEIGHTS, mode ?? "") ? mode : DEFAULTS.mode,
    index: given.get("index") ?? DEFAULTS.index,
    facets: given.has("facets") ? given.getAll("facets").filter(Boolean) : DEFAULTS.facets,
    doc: given.get("doc") ?? DEFAULTS.doc,
  };
}

/** Write the address of a state, without what is the default. */
export function address(state) {
  const parts = new URLSearchParams();
  for (const [name, value] of Object.entries(state)) {
    if (name === "facets" && value !== null) (value.length ? value : [""]).forEach((key) => parts.append(name, key));
    else if (value !== DEFAULTS[name]) parts.set(name, value);
  }
  const query = parts.toString();
  return query ? `/?${query}` : "/";
}

/** Whether two states ask the server for the same hits. */
export function asksTheSame(one, other) {
  return ["q", "where", "k", "offset", "mode", "index"].every((name) => one[name] === other[name]);
}

function whole(text, least) {
  const number = /^\d+$/.test(text ?? "") ? Number(text) : NaN;
  return number >= least && Number.isSafeInteger(number) ? number : null;
}
