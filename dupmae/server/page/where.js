// Filter expressions as the checkboxes change them. The field holds the one truth: a checked value
// is a clause there, `kind = "class"` or `kind in ("class", "module")`, joined to the rest by `and`.

const TOKEN = /\s*((?:"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|[^\s"'()<>=!,])+|[<>!]=|.)/gsu;
const WORD = /^[\p{L}_][\p{L}\p{N}_]*(?:-[\p{L}\p{N}_]+)*$/u;

/** Write a path of metadata keys as filters have it. */
export function keyText(path) {
  const isOwn = path.length === 1 && ["id", "title"].includes(path[0]);
  return path.map((step) => (WORD.test(step) && step.toLowerCase() !== "not" && !isOwn ? step : JSON.stringify(step))).join(".");
}

/** Yield key and value of all plain values in a document's metadata; a list's elements each. */
export function* plainValues(metadata, path = []) {
  for (const [step, value] of Object.entries(metadata)) {
    const here = [...path, step];
    for (const one of Array.isArray(value) ? value.flat(Infinity) : [value]) {
      if (one !== null && typeof one === "object") yield* plainValues(one, here);
      else yield [keyText(here), one];
    }
  }
}

/** Return the values checked for a key, each as JSON. */
export function pickedValues(where, key) {
  const { clauses } = parts(where);
  return new Set(clauses.flatMap((clause) => clauseValues(clause, key) ?? []));
}

/** Return the keys for which values are checked, but for a document's own id and title. */
export function pickedKeys(where) {
  const { clauses } = parts(where);
  const picked = clauses.filter((clause) => clauseValues(clause, clause.tokens[0]) !== null).map(({ tokens: [key] }) => key);
  return [...new Set(picked)].filter((key) => !["id", "title"].includes(key));
}

/** Return the expression with a value (as JSON) checked or not. */
export function withPick(where, key, json, isOn) {
  const picked = pickedValues(where, key);
  if (isOn) picked.add(json);
  else picked.delete(json);
  return withPicks(where, key, [...picked]);
}

/** Return the expression with just these values (as JSON) checked for a key. */
export function withPicks(where, key, picked) {
  const { clauses, isChoice } = parts(where);
  const own = picked.length === 1 ? `${key} = ${picked[0]}` : `${key} in (${picked.join(", ")})`;
  const rest = isChoice ? [picked.length ? `(${where.trim()})` : where.trim()] : clauses.map((c) => c.text);
  const place = isChoice ? -1 : clauses.findIndex((clause) => clauseValues(clause, key) !== null);
  const others = isChoice ? rest : rest.filter((_, i) => clauseValues(clauses[i], key) === null);
  if (picked.length) others.splice(place < 0 ? others.length : place, 0, own);
  return others.join(" and ");
}

/** Split an expression at its outermost `and`s; `isChoice` if an `or` stands outside them. */
function parts(where) {
  const found = tokens(where);
  const clauses = [];
  let depth = 0;
  let begun = [];
  let isChoice = false;
  for (const token of found) {
    const word = token.text.toLowerCase();
    depth += { "(": 1, ")": -1 }[word] ?? 0;
    if (depth === 0 && word === "or") isChoice = true;
    if (depth === 0 && word === "and") {
      clauses.push(begun);
      begun = [];
    } else begun.push(token);
  }
  if (begun.length) clauses.push(begun);
  const whole = clauses.filter((clause) => clause.length).map((clause) => ({
    tokens: clause.map((token) => token.text),
    text: where.slice(clause[0].start, clause.at(-1).end),
  }));
  return { clauses: isChoice ? [] : whole, isChoice };
}

/** Return the values of a clause that checkboxes can show, or null if it is another one. */
function clauseValues({ tokens: [first, operator, ...rest] }, key) {
  if (first !== key) return null;
  if (operator === "=" && rest.length === 1) return jsonValues(rest);
  if (operator?.toLowerCase() !== "in" || rest[0] !== "(" || rest.at(-1) !== ")") return null;
  return jsonValues(rest.slice(1, -1).filter((token) => token !== ","));
}

function jsonValues(texts) {
  try {
    return texts.map((text) => JSON.stringify(JSON.parse(text.startsWith("'") ? doubleQuoted(text) : lowered(text))));
  } catch {
    return null; // not written to its end, or no value
  }
}

const doubleQuoted = (text) => `"${text.slice(1, -1).replace(/\\'/g, "'").replace(/(?<!\\)"/g, '\\"')}"`;
const lowered = (text) => (text.startsWith('"') ? text : text.toLowerCase());

function tokens(where) {
  return [...where.matchAll(TOKEN)]
    .map((match) => ({ text: match[1], end: match.index + match[0].length }))
    .map((token) => ({ ...token, start: token.end - token.text.length }))
    .filter((token) => token.text.trim());
}
