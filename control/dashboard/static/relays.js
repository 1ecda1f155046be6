// The table of the network's relays: sorted by any column, filtered by text and flags.
import { clean, count, element, nameOf, rate, replaceRows, row, say } from "./text.js";

const page = 200; // rows shown before one asks for more

const columns = [
  { key: "name", title: "Relay", first: 1, value: (r) => nameOf(r).toLowerCase() },
  { key: "flags", title: "Flags", first: -1, value: (r) => r.flags.length },
  { key: "weight", title: "Weight", first: -1, kind: "number", value: (r) => r.weight },
  { key: "address", title: "Address", first: 1, value: (r) => addressKey(r.addresses[0] ?? "") },
  { key: "identity", title: "Identity", first: 1, value: (r) => r.identity },
];

// addressKey sorts numbers in an address as numbers.
const addressKey = (a) => a.replace(/\d+/g, (n) => n.padStart(5, "0"));

export class Relays {
  constructor() {
    this.list = [];
    this.known = false;
    this.used = new Map(); // identity to what this node has of the relay
    this.sort = { key: "weight", down: -1 };
    this.flags = new Set();
    this.limit = page;
    const at = (id) => document.getElementById(id);
    [this.table, this.count, this.empty, this.more, this.filter, this.chips] =
      ["relay-table", "relay-count", "relay-empty", "relay-more", "relay-filter", "relay-flags"].map(at);
    this.filter.addEventListener("input", () => this.again());
    this.more.addEventListener("click", () => {
      this.limit += page;
      this.draw();
    });
    this.head();
  }

  again() {
    this.limit = page;
    this.draw();
  }

  head() {
    const cells = columns.map((c) => {
      const arrow = element("span", { class: "arrow", "aria-hidden": "true" });
      const button = element("button", { type: "button" }, c.title, arrow);
      button.addEventListener("click", () => {
        this.sort = { key: c.key, down: this.sort.key === c.key ? -this.sort.down : c.first };
        this.draw();
      });
      c.cell = element("th", { role: "columnheader", scope: "col", class: c.kind }, button);
      return c.cell;
    });
    this.table.tHead.rows[0].replaceChildren(...cells);
  }

  set(list, known) {
    this.list = list;
    this.known = known;
    this.makeChips();
    this.draw();
  }

  // setUsed tells which relays are in this node's circuits.
  setUsed(used) {
    const same = used.size === this.used.size && [...used].every(([k, v]) => this.used.get(k) === v);
    this.used = used;
    if (!same) this.draw();
  }

  makeChips() {
    const names = [...new Set(this.list.flatMap((r) => r.flags))].sort();
    if (names.join() === this.chipNames) return;
    this.chipNames = names.join();
    this.flags = new Set([...this.flags].filter((f) => names.includes(f)));
    this.chips.replaceChildren(...names.map((name) => {
      const chip = element("button", { type: "button", class: "chip", "aria-pressed": this.flags.has(name) }, name);
      chip.addEventListener("click", () => {
        if (!this.flags.delete(name)) this.flags.add(name);
        chip.setAttribute("aria-pressed", this.flags.has(name));
        this.again();
      });
      return chip;
    }));
  }

  draw() {
    const words = this.filter.value.trim().toLowerCase();
    const column = columns.find((c) => c.key === this.sort.key);
    const shown = this.list.filter((r) => [...this.flags].every((f) => r.flags.includes(f)) &&
      (!words || [r.nickname, r.identity, ...r.addresses].some((t) => t.toLowerCase().includes(words))));
    const keys = new Map(shown.map((r) => [r, column.value(r)]));
    shown.sort((a, b) => {
      const x = keys.get(a), y = keys.get(b);
      return (x < y ? -1 : x > y ? 1 : 0) * this.sort.down || (a.identity < b.identity ? -1 : 1);
    });
    for (const c of columns) {
      const now = c.key === this.sort.key;
      c.cell.setAttribute("aria-sort", !now ? "none" : this.sort.down > 0 ? "ascending" : "descending");
      say(c.cell.querySelector(".arrow"), !now ? "" : this.sort.down > 0 ? "▲" : "▼");
    }
    const total = this.list.reduce((n, r) => n + r.weight, 0);
    replaceRows(this.table, shown.slice(0, this.limit).map((r) => this.row(r, total)));
    const rest = shown.length - Math.min(shown.length, this.limit);
    this.more.hidden = rest === 0;
    say(this.more, `Show ${Math.min(rest, page)} more of ${rest}`);
    say(this.count, this.list.length === 0 ? "" : shown.length === this.list.length ? count(shown.length, "relay") : `${shown.length} of ${count(this.list.length, "relay")}`);
    this.table.hidden = shown.length === 0;
    this.empty.hidden = shown.length > 0;
    say(this.empty, this.known && this.list.length > 0 ? "No relay is like that. Take a flag or some of the text away." : "There is no consensus yet: until there is one, no relay is known.");
  }

  row(r, total) {
    const share = total > 0 ? (100 * r.weight) / total : 0;
    const used = this.used.get(r.identity);
    return row([
      { label: "Relay", kind: "name", content: [element("bdi", {}, nameOf(r)), used ? element("span", { class: "tag" }, used) : null] },
      { label: "Flags", kind: "flags", content: r.flags.map((f) => element("span", { class: `flag flag-${f.toLowerCase().replace(/[^a-z0-9]/g, "")}` }, f)) },
      { label: "Weight", kind: "number", content: [rate(r.weight * 1024), element("span", { class: "muted share" }, `${share < 9.95 ? share.toFixed(1) : Math.round(share)}\u00a0%`)] },
      { label: "Address", kind: "mono", content: [clean(r.addresses[0] ?? ""), r.addresses.length > 1 ? element("span", { class: "muted", title: clean(r.addresses.slice(1).join(", ")) }, ` +${r.addresses.length - 1}`) : null] },
      { label: "Identity", kind: "mono", content: [element("span", { title: clean(r.identity) }, clean(r.identity.slice(0, 16)) + "…")] },
    ]);
  }
}
