// The picture of a client's circuits: you, then a lane for each circuit with its relays and its streams. Circuits
// through one guard are next to each other and share its mark.
import { age, clean, count, drawing, nameOf, size } from "./text.js";

const mostStreams = 4; // shown on one lane
const mostLanes = 40;

// useOf says in a word or two what a circuit is for now, as `cepa circuits` does.
export function useOf(c) {
  if (c.state === "closed") return "closed";
  if (c.state === "building") return `building ${c.built}/${c.hops.length}`;
  if (c.suspect) return "silent";
  if (c.retired) return c.streams > 0 ? "last streams" : "ending";
  if (c.purpose === "ready") return "ready";
  return c.streams > 0 ? "in use" : "was used";
}

// kindOf is the class that colours it.
function kindOf(c) {
  if (c.state === "building") return "lane-building";
  if (c.suspect) return "lane-suspect";
  if (c.retired) return "lane-idle";
  if (c.purpose === "ready") return "lane-ready";
  return c.streams > 0 ? "lane-used" : "lane-idle";
}

// streamText is one stream in a line.
export function streamText(s) {
  const state = { waiting: "waits", asked: "asked", open: "" }[s.state] ?? s.state;
  const parts = [`${s.kind === "resolve" ? "look-up of " : ""}${clean(s.destination)}`];
  if (state) parts.push(clean(state));
  else parts.push(`${size(s.bytes_received)} in, ${size(s.bytes_sent)} out`);
  return parts.join("  ·  ");
}

// arrange puts circuits in their order, and gives each lane its place.
function arrange(circuits, streams, wide) {
  const on = Map.groupBy ? Map.groupBy(streams, (s) => s.circuit) : new Map();
  if (!Map.groupBy) for (const s of streams) on.set(s.circuit, [...(on.get(s.circuit) ?? []), s]);
  const groups = new Map();
  for (const c of [...circuits].sort((a, b) => a.id - b.id).slice(0, mostLanes)) {
    const guard = c.hops[0]?.identity ?? "";
    if (!groups.has(guard)) groups.set(guard, []);
    groups.get(guard).push(c);
  }
  let y = wide ? 40 : 34;
  const lanes = [];
  for (const [guard, list] of groups) {
    for (const circuit of list) {
      const all = on.get(circuit.id) ?? [];
      const lines = all.slice(0, mostStreams).map(streamText);
      if (all.length > mostStreams) lines.push(`and ${all.length - mostStreams} more`);
      const height = wide ? Math.max(58, 30 + 18 * (lines.length + 1)) : 66 + 17 * lines.length;
      lanes.push({ guard, circuit, lines, top: y, y: wide ? y + height / 2 - 6 : y + 14, height });
      y += height;
    }
  }
  return { lanes, height: y + 6 };
}

// cut shortens a label to what fits.
function cut(text, pixels) {
  const fits = Math.max(3, Math.floor(pixels / 6.9));
  return text.length > fits ? text.slice(0, fits - 1) + "…" : text;
}

// draw gives the picture as an SVG of a width.
export function draw(circuits, streams, width) {
  const wide = width >= 620;
  const { lanes, height } = arrange(circuits, streams, wide);
  const hops = Math.max(3, ...lanes.map((l) => l.circuit.hops.length));
  const first = wide ? 40 : 20, last = wide ? width * 0.56 : width - 44;
  const at = (i) => first + ((last - first) * i) / hops; // 0 is you
  const room = at(1) - at(0) - 8;
  const edges = [], marks = [], texts = [];
  const heading = (x, text, anchor = "middle") => texts.push(drawing("text", { class: "heading", x, y: 14, "text-anchor": anchor }, text));
  heading(wide ? at(0) : 4, "You", wide ? "middle" : "start");
  heading(at(1), "Guard");
  for (let i = 2; i < hops; i++) heading(at(i), "Middle");
  heading(at(hops), "Exit");
  if (wide) heading(last + 44, "Circuit and streams", "start");
  const mid = lanes.length ? (lanes[0].y + lanes.at(-1).y) / 2 : 40;

  const curve = (x1, y1, x2, y2) => `M${x1},${y1}C${(x1 + x2) / 2},${y1} ${(x1 + x2) / 2},${y2} ${x2},${y2}`;
  const mark = (hop, x, y, kind, label) => {
    const title = drawing("title", {}, `${nameOf(hop)}\n${hop.address}\n${hop.identity}`);
    marks.push(drawing("g", { class: kind }, title, drawing("circle", { cx: x, cy: y, r: 7 })));
    texts.push(drawing("text", { class: "label", x, y: y + 22, "text-anchor": "middle" }, cut(label, room)));
  };
  const guards = new Map();
  for (const l of lanes) {
    if (!guards.has(l.guard)) guards.set(l.guard, []);
    guards.get(l.guard).push(l);
  }
  for (const list of guards.values()) {
    const y = (list[0].y + list.at(-1).y) / 2;
    const hop = list[0].circuit.hops[0];
    const best = list.find((l) => kindOf(l.circuit) === "lane-used") ?? list[0];
    if (hop) {
      edges.push(drawing("path", { class: `edge ${kindOf(best.circuit)}`, d: curve(at(0), mid, at(1), y) }));
      mark(hop, at(1), y, `mark ${list.some((l) => l.circuit.built > 0) ? "built" : "unbuilt"} ${kindOf(best.circuit)}`, nameOf(hop));
    }
    for (const l of list) lane(l, y);
  }

  function lane(l, guardY) {
    const c = l.circuit, kind = kindOf(c);
    for (let i = 1; i < c.hops.length; i++) {
      const built = i < c.built ? "built" : "unbuilt";
      const from = i === 1 ? guardY : l.y;
      edges.push(drawing("path", { class: `edge ${kind} ${built}`, d: i === 1 ? curve(at(1), from, at(2), l.y) : `M${at(i)},${from}L${at(i + 1)},${l.y}` }));
      mark(c.hops[i], at(i + 1), l.y, `mark ${built} ${kind}`, nameOf(c.hops[i]));
    }
    const what = `#${c.id}  ·  ${useOf(c)}  ·  ${age(c.age_seconds)}`;
    const rows = [[what, "what"], ...l.lines.map((t) => [t, "stream"])];
    if (wide) {
      const x = last + 44, y = l.y + 4 - 9 * (rows.length - 1);
      if (l.lines.length > 0) edges.push(drawing("path", { class: `edge ${kind}`, d: `M${last},${l.y}L${x - 12},${l.y}` }), drawing("path", { class: `arrow ${kind}`, d: `M${x - 16},${l.y - 4}l6,4l-6,4` }));
      rows.forEach(([t, k], i) => texts.push(drawing("text", { class: k, x, y: y + 18 * i }, cut(t, width - x))));
    } else {
      const x = at(1) - 16;
      rows.forEach(([t, k], i) => texts.push(drawing("text", { class: k, x, y: l.y + 42 + 17 * i }, cut(t, width - x))));
    }
  }

  if (lanes.length > 0) marks.push(drawing("circle", { class: "you", cx: at(0), cy: mid, r: 9 }));
  const spoken = circuits.map((c) => `circuit ${c.id}, ${useOf(c)}: ${c.hops.map(nameOf).join(", ")}`).join("; ");
  return drawing("svg", { width, height, role: "img", "aria-label": `${count(circuits.length, "circuit")}. ${spoken}` }, edges, marks, texts);
}

export { mostLanes };
