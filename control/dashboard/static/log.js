// The log: the last thousand lines, and those that come. It goes along with the newest until one scrolls up.
import { clean, clock, element, say } from "./text.js";

const most = 1000; // lines
const levels = { DEBUG: 0, INFO: 1, WARN: 2, ERROR: 3 };

export class Log {
  constructor() {
    const at = (id) => document.getElementById(id);
    [this.box, this.empty, this.filter, this.level, this.newest] = ["log-lines", "log-empty", "log-filter", "log-level", "log-newest"].map(at);
    this.lines = [];
    this.last = 0;
    this.follow = true;
    this.box.addEventListener("scroll", () => {
      this.follow = this.box.scrollHeight - this.box.scrollTop - this.box.clientHeight < 30;
      this.newest.hidden = this.follow;
    });
    this.newest.addEventListener("click", () => {
      this.follow = true;
      this.toEnd();
      this.box.focus({ preventScroll: true });
    });
    this.filter.addEventListener("input", () => this.draw());
    this.level.addEventListener("change", () => this.draw());
  }

  // clear forgets what another run of the node has said.
  clear() {
    this.lines = [];
    this.last = 0;
    this.draw();
  }

  // set takes the answer of the API, which has all lines after the last.
  set(log) {
    const fresh = log.lines.filter((l) => l.number > this.last);
    this.last = Math.max(this.last, log.last);
    this.lines = this.lines.concat(fresh).slice(-most);
    this.draw();
  }

  add(line) {
    if (line.number <= this.last) return;
    this.last = line.number;
    this.lines.push(line);
    if (this.lines.length > most) this.lines.shift();
    if (!this.wanted(line)) return this.say();
    this.box.append(this.item(line));
    while (this.box.childElementCount > most) this.box.firstElementChild.remove();
    this.say();
    this.toEnd();
  }

  wanted(line) {
    const words = this.filter.value.trim().toLowerCase();
    return (levels[line.level] ?? 1) >= Number(this.level.value) && (!words || line.text.toLowerCase().includes(words));
  }

  item(line) {
    const { message, rest } = split(line.text);
    const level = line.level in levels ? line.level : "INFO";
    return element("li", { class: `level-${level.toLowerCase()}` },
      element("time", { datetime: clean(line.time) }, clock(line.time)),
      element("span", { class: "level" }, level),
      element("span", { class: "text" }, element("bdi", {}, message), rest ? element("bdi", { class: "muted" }, " " + rest) : null));
  }

  draw() {
    this.box.replaceChildren(...this.lines.filter((l) => this.wanted(l)).map((l) => this.item(l)));
    this.say();
    this.toEnd();
  }

  say() {
    this.empty.hidden = this.box.childElementCount > 0;
    this.box.hidden = !this.empty.hidden;
    say(this.empty, this.lines.length === 0
      ? "The node has logged nothing yet. Its setting log_level says what it logs."
      : "No line is like that. Take some of the text away, or choose another level.");
  }

  toEnd() {
    if (this.follow) this.box.scrollTop = this.box.scrollHeight;
  }
}

// split takes the message out of a line of the form msg="..." key=value; other lines are all message.
function split(text) {
  const m = /^msg=("(?:[^"\\]|\\.)*"|[^\s"]\S*)\s*/.exec(text);
  if (!m) return { message: text, rest: "" };
  let message = m[1];
  if (message.startsWith('"')) {
    try { message = JSON.parse(message); } catch { return { message: text, rest: "" }; }
  }
  return { message, rest: text.slice(m[0].length) };
}
