// Elements, and numbers as they are shown. Text only ever becomes text nodes: whatever a document,
// a query or an error holds, none of it is read as HTML.

/** Return the element of an id. */
export const byId = (id) => document.getElementById(id);

/**
 * Make an element.
 *
 * Functions among the attributes are listeners (`onclick`), true and false set or omit an
 * attribute, `vars` are custom properties for the style sheet.
 */
export function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") made.addEventListener(name.slice(2), value);
    else if (name === "vars") setVars(made, value);
    else if (typeof value === "boolean") made.toggleAttribute(name, value);
    else if (value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children.flat().filter((child) => child !== null));
  return made;
}

/** Set custom properties, which the strict content security policy allows scripts to do. */
export function setVars(element, vars) {
  for (const [name, value] of Object.entries(vars)) element.style.setProperty(`--${name}`, value);
}

/** Words for screen readers alone. */
export const unseen = (text) => el("span", { class: "unseen" }, text);

/** A number with its exact value behind the digits that are shown. */
export function number(value, digits = 4) {
  return el("data", { value: String(value), title: String(value) }, decimal(value, digits));
}

export const decimal = (value, digits = 4) => value.toFixed(digits).replace("-", "\u2212");
export const counted = (value) => value.toLocaleString("en");
export const plural = (value, noun) => `${counted(value)} ${noun}${value === 1 ? "" : "s"}`;
