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
  const on = new Map();
  for (const s of streams) on.set(s.circuit, [...(on.get(s.circuit) ?? []), s]);
  const groups = new Map();
  for (const c of [...circuits].sort((a, b) => a.id - b.id).slice(0, mostLanes)) {
    const guard = c.hops[0]?.identity ?? "";
    groups.set(guard, [...(groups.get(guard) ?? []), c]);
  }
  let y = wide ? 40 : 26;
  const lanes = [];
  for (const [guard, list] of groups) {
    for (const circuit of list) {
      const all = on.get(circuit.id) ?? [];
      const lines = all.slice(0, mostStreams).map(streamText);
      if (all.length > mostStreams) lines.push(`and ${all.length - mostStreams} more`);
      const height = wide ? Math.max(58, 30 + 18 * (lines.length + 1)) : 88 + 18 * lines.length;
      lanes.push({ guard, circuit, lines, top: y, y: wide ? y + height / 2 - 6 : y + 40, height });
      y += height;
    }
  }
  return { lanes, height: y + (wide ? 6 : 0) };
}

// cut shortens a label to what fits.
function cut(text, pixels) {
  const fits = Math.max(3, Math.floor(pixels / 6.9));
  return text.length > fits ? text.slice(0, fits - 1) + "…" : text;
}

// Sketch collects the parts of a picture, which lie in this order.
class Sketch {
  constructor() {
    this.edges = [];
    this.marks = [];
    this.texts = [];
  }

  edge(kind, d) { this.edges.push(drawing("path", { class: `edge ${kind}`, d })); }

  text(kind, x, y, text, anchor) { this.texts.push(drawing("text", { class: kind, x, y, "text-anchor": anchor }, text)); }

  you(x, y, r) { this.marks.push(drawing("circle", { class: "you", cx: x, cy: y, r })); }

  // mark is one relay.
  mark(hop, kind, x, y, room) {
    this.marks.push(drawing("g", { class: `mark ${kind}` },
      drawing("title", {}, `${nameOf(hop)}\n${hop.address}\n${hop.identity}`), drawing("circle", { cx: x, cy: y, r: 7 })));
    this.text("label", x, y + 22, cut(nameOf(hop), room), "middle");
  }
}

const curve = (x1, y1, x2, y2) => `M${x1},${y1}C${(x1 + x2) / 2},${y1} ${(x1 + x2) / 2},${y2} ${x2},${y2}`;
const builtOf = (c, i) => (i < c.built ? "built" : "unbuilt");
const laneText = (c) => `#${c.id}  ·  ${useOf(c)}  ·  ${age(c.age_seconds)}`;

// draw gives the picture as an SVG of a width: as a tree where there is room, else as a path for each circuit.
export function draw(circuits, streams, width) {
  const wide = width >= 620;
  const { lanes, height } = arrange(circuits, streams, wide);
  const hops = Math.max(3, ...lanes.map((l) => l.circuit.hops.length));
  const first = wide ? 40 : 14, last = wide ? width * 0.56 : width - 42;
  const at = (i) => first + ((last - first) * i) / hops; // 0 is you
  const s = new Sketch();
  s.text("heading", wide ? at(0) : 2, 14, "You", wide ? "middle" : "start");
  for (let i = 1; i <= hops; i++) s.text("heading", at(i), 14, i === 1 ? "Guard" : i === hops ? "Exit" : "Middle", "middle");
  if (wide) {
    s.text("heading", last + 44, 14, "Circuit and streams", "start");
    drawTree(s, lanes, at, last, width);
  } else lanes.forEach((l) => drawLane(s, l, at, width));
  const spoken = circuits.map((c) => `circuit ${c.id}, ${useOf(c)}: ${c.hops.map(nameOf).join(", ")}`).join("; ");
  return drawing("svg", { width, height, role: "img", "aria-label": `${count(circuits.length, "circuit")}. ${spoken}` }, s.edges, s.marks, s.texts);
}

// drawTree draws lanes with one mark for you and one for each guard.
function drawTree(s, lanes, at, last, width) {
  const room = at(1) - at(0) - 8;
  const guards = new Map();
  for (const l of lanes) guards.set(l.guard, [...(guards.get(l.guard) ?? []), l]);
  const mid = (lanes[0].y + lanes.at(-1).y) / 2;
  for (const list of guards.values()) {
    const y = (list[0].y + list.at(-1).y) / 2, hop = list[0].circuit.hops[0];
    const kind = kindOf((list.find((l) => kindOf(l.circuit) === "lane-used") ?? list[0]).circuit);
    if (hop) {
      const built = list.some((l) => l.circuit.built > 0) ? "built" : "unbuilt";
      s.edge(`${kind} ${built}`, curve(at(0), mid, at(1), y));
      s.mark(hop, `${kind} ${built}`, at(1), y, room);
    }
    for (const l of list) {
      const c = l.circuit, k = kindOf(c);
      c.hops.slice(1).forEach((h, i) => {
        const of = `${k} ${builtOf(c, i + 1)}`;
        s.edge(of, i === 0 ? curve(at(1), y, at(2), l.y) : `M${at(i + 1)},${l.y}L${at(i + 2)},${l.y}`);
        s.mark(h, of, at(i + 2), l.y, room);
      });
      const x = last + 44, top = l.y + 4 - 9 * l.lines.length;
      if (l.lines.length > 0) {
        s.edge(k, `M${last},${l.y}L${x - 12},${l.y}`);
        s.edge(k, `M${x - 16},${l.y - 4}l5,4l-5,4`);
      }
      s.text("what", x, top, cut(laneText(c), width - x));
      l.lines.forEach((t, i) => s.text("stream", x, top + 18 * (i + 1), cut(t, width - x)));
    }
  }
  s.you(at(0), mid, 9);
}

// drawLane draws one circuit with what is said of it above, and its streams below.
function drawLane(s, l, at, width) {
  const c = l.circuit, kind = kindOf(c);
  s.text("what", 2, l.y - 22, cut(laneText(c), width));
  c.hops.forEach((h, i) => {
    const of = `${kind} ${builtOf(c, i)}`;
    s.edge(of, `M${at(i)},${l.y}L${at(i + 1)},${l.y}`);
    s.mark(h, of, at(i + 1), l.y, at(2) - at(1) - 6);
  });
  s.you(at(0), l.y, 7);
  l.lines.forEach((t, i) => s.text("stream", 2, l.y + 42 + 18 * i, cut(t, width)));
}

export { mostLanes };
