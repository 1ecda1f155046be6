// The plot of traffic: received above, sent below it in front, five minutes by the second, the newest at the right.
import { clock, drawing, rate, say } from "./text.js";

const span = 300; // seconds
const margin = { left: 66, right: 8, top: 10, bottom: 22 };

// Plot draws into an element.
export class Plot {
  constructor(box, note) {
    this.box = box;
    this.note = note;
    this.hint = note.textContent;
    this.samples = [];
    this.cursor = null; // seconds before the newest
    new ResizeObserver(() => this.draw()).observe(box);
    box.addEventListener("pointermove", (e) => this.point(e));
    box.addEventListener("pointerleave", () => this.look(null));
    box.addEventListener("blur", () => this.look(null));
    box.addEventListener("keydown", (e) => this.press(e));
  }

  set(samples) {
    this.samples = samples.slice(-span);
    this.draw();
  }

  add(sample) {
    this.samples.push(sample);
    this.samples = this.samples.slice(-span);
    this.draw();
  }

  point(e) {
    const plotWidth = this.box.clientWidth - margin.left - margin.right;
    const x = e.clientX - this.box.getBoundingClientRect().left - margin.left;
    this.look(Math.round((1 - x / plotWidth) * (span - 1)));
  }

  press(e) {
    const step = { ArrowLeft: 1, ArrowRight: -1, PageUp: 30, PageDown: -30 }[e.key];
    if (e.key === "Escape") this.look(null);
    else if (e.key === "Home") this.look(this.samples.length - 1);
    else if (e.key === "End") this.look(0);
    else if (step) this.look((this.cursor ?? (step > 0 ? -1 : 1)) + step);
    else return;
    e.preventDefault();
  }

  look(cursor) {
    if (cursor !== null) cursor = Math.max(0, Math.min(cursor, this.samples.length - 1));
    if (cursor === this.cursor) return;
    this.cursor = cursor;
    this.draw();
  }

  draw() {
    const width = this.box.clientWidth, height = this.box.clientHeight;
    if (width < margin.left + 40 || height < 60) return;
    const most = this.samples.reduce((m, s) => Math.max(m, s.received, s.sent), 0);
    const { top, step } = scale(most);
    const x = (back) => margin.left + (width - margin.left - margin.right) * (1 - back / (span - 1));
    const y = (v) => margin.top + (height - margin.top - margin.bottom) * (1 - v / top);
    const parts = [];
    for (let v = 0; v <= top; v += step) {
      const at = Math.round(y(v)) + 0.5;
      parts.push(drawing("line", { class: "grid", x1: margin.left, x2: width - margin.right, y1: at, y2: at }),
        drawing("text", { class: "tick", x: margin.left - 8, y: at + 4, "text-anchor": "end" }, v === 0 ? "0" : rate(v)));
    }
    for (const minutes of width < 420 ? [0, 2, 4] : [0, 1, 2, 3, 4]) {
      parts.push(drawing("text", { class: "tick", x: x(minutes * 60), y: height - 4, "text-anchor": minutes === 0 ? "end" : "middle" },
        minutes === 0 ? "now" : `\u2212${minutes} min`));
    }
    for (const kind of ["received", "sent"]) {
      const n = this.samples.length;
      if (n === 0) continue;
      const line = this.samples.map((s, i) => `${x(n - 1 - i).toFixed(1)},${y(s[kind]).toFixed(1)}`).join("L");
      parts.push(drawing("path", { class: `area ${kind}`, d: `M${x(n - 1)},${y(0)}L${line}L${x(0)},${y(0)}Z` }),
        drawing("path", { class: `line ${kind}`, d: `M${line}` }));
    }
    const seen = this.cursor === null ? undefined : this.samples[this.samples.length - 1 - this.cursor];
    if (seen) {
      const at = x(this.cursor);
      parts.push(drawing("line", { class: "cursor", x1: at, x2: at, y1: margin.top, y2: height - margin.bottom }));
      for (const kind of ["received", "sent"]) parts.push(drawing("circle", { class: `dot ${kind}`, cx: at, cy: y(seen[kind]), r: 3.5 }));
    }
    say(this.note, seen ? `${clock(seen.at)}: ${rate(seen.received)} received, ${rate(seen.sent)} sent` : this.hint);
    this.box.replaceChildren(drawing("svg", { width, height, "aria-hidden": "true", focusable: "false" }, parts));
  }
}

// scale chooses two to five steps of round numbers that hold the most.
function scale(most) {
  let unit = 1;
  while (most >= 1000 * unit) unit *= 1024;
  most = Math.max(most, unit === 1 ? 100 : 0);
  for (let ten = 1; ; ten *= 10) {
    for (const round of [1, 2, 5]) {
      const step = round * ten * unit;
      if (most <= 4 * step) return { step, top: step * Math.max(2, Math.ceil(most / step)) };
    }
  }
}
