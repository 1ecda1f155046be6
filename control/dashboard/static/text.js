// Words and numbers for people, and elements. Whatever comes from the network or the node becomes text nodes; nothing
// here, or in any file of the page, turns text into markup.

// clean shows characters that would move the cursor, hide themselves or turn the line around.
export function clean(text) {
  return String(text ?? "").replace(/[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]/g, "\ufffd");
}

// element makes one with attributes and children; strings become text.
export function element(name, attributes, ...children) {
  return filled(document.createElement(name), attributes, children);
}

// drawing is element for SVG.
export function drawing(name, attributes, ...children) {
  return filled(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
}

function filled(e, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    e.setAttribute(name, value === true ? "" : String(value));
  }
  for (const c of children.flat()) {
    if (c === null || c === undefined) continue;
    e.append(c instanceof Node ? c : clean(c));
  }
  return e;
}

// say sets text if it is another one, so that what reads the page aloud is not disturbed.
export function say(e, text) {
  text = clean(text);
  if (e.textContent !== text) e.textContent = text;
}

const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

// size is a number of bytes, as `cepa status` writes it.
export function size(n) {
  let unit = 0;
  for (n = Number(n) || 0; n >= 1000 && unit < units.length - 1; unit++) n /= 1024;
  return `${unit > 0 && n < 9.95 ? n.toFixed(1) : Math.round(n)}\u00a0${units[unit]}`;
}

export const rate = (n) => size(n) + "/s";

// age is a time in seconds.
export function age(s) {
  if (s < 120) return `${Math.max(0, Math.floor(s))}\u00a0s`;
  if (s < 2 * 3600) return `${Math.floor(s / 60)}\u00a0min`;
  if (s < 48 * 3600) return `${Math.floor(s / 3600)}\u00a0h`;
  return `${Math.floor(s / 86400)}\u00a0d`;
}

const two = (n) => String(n).padStart(2, "0");

// clock is a time of day here, with the date when it is not of today.
export function clock(date) {
  date = new Date(date);
  if (Number.isNaN(date.getTime())) return "?";
  const time = `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
  if (date.toDateString() === new Date().toDateString()) return time;
  return `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())} ${time}`;
}

// count is a number with its noun.
export const count = (n, one, many = one + "s") => `${n}\u00a0${n === 1 ? one : many}`;

// nameOf is a relay's nickname, or the beginning of its identity.
export const nameOf = (relay) => clean(relay.nickname || (relay.identity || "?").slice(0, 8));

// replace fills a table's body.
export function replaceRows(table, rows) {
  table.tBodies[0].replaceChildren(...rows);
}

// row makes one of a table; cells are [label, content..., class].
export function row(cells, attributes) {
  return element("tr", { role: "row", ...attributes }, cells.map(({ label, kind, content }) =>
    element("td", { role: "cell", "data-label": label, class: kind }, element("span", { class: "value" }, content))));
}
