// The page: connects to the node, keeps what it says, and draws what has changed. Events tell what happens; circuits,
// streams and counters are asked for again after an event, at most once a second.
import { Failure, ask, events, forgetToken, setToken, takeToken } from "./api.js";
import { Log } from "./log.js";
import { draw as drawPicture, mostLanes, streamText, useOf } from "./picture.js";
import { Plot } from "./plot.js";
import { Relays } from "./relays.js";
import { age, clean, clock, count, element, nameOf, rate, replaceRows, row, say, size } from "./text.js";
import { startTheme } from "./theme.js";

const $ = (id) => document.getElementById(id);
const plot = new Plot($("plot"), $("plot-note"));
const relays = new Relays();
const log = new Log();

// What the node has said last.
const node = { status: null, bandwidth: null, circuits: [], streams: [], guards: [], links: [], counters: {}, digest: "", heard: 0 };
const isClient = () => node.status?.role === "client";

const kinds = ["status", "bandwidth", "circuit", "stream", "log"];
let wake = () => {}; // ends a wait

startTheme($("theme"), $("theme-icon"), $("theme-name"));
$("retry").addEventListener("click", () => wake());
$("door-form").addEventListener("submit", (e) => {
  e.preventDefault();
  setToken($("door-token").value);
  $("door-token").value = "";
  wake();
});
window.addEventListener("hashchange", () => {
  if (location.hash.includes("token=") && takeToken()) location.reload();
});
$("new-identity").addEventListener("click", newIdentity);
new ResizeObserver(() => isClient() && drawCircuits()).observe($("picture"));
run();

// run connects, again and again.
async function run() {
  for (let wait = 1; ;) {
    if (!takeToken()) {
      await door("This page needs a token", "It shows what a node does and can have it take a new identity; so it asks for a token, which only you can read.");
      continue;
    }
    try {
      const read = await events(kinds);
      await loadAll();
      show("live");
      wait = 1;
      await read(handle);
    } catch (e) {
      if (!(e instanceof Failure)) console.error(e);
      if (e.status === 401) {
        forgetToken();
        await door("The token is not right, or not any more", "A token is new with each start of the node, or of 'cepa dashboard'.");
        continue;
      }
      await gone(e, wait);
      wait = Math.min(wait * 2, 8);
    }
  }
}

// door shows why nothing can be asked, until there is another token.
function door(title, text) {
  show("door");
  say($("door-title"), title);
  say($("door-text"), text);
  $("door-token").focus();
  return new Promise((resolve) => { wake = resolve; });
}

// gone says that the node does not answer, and waits some seconds or until told to try.
async function gone(failure, seconds) {
  show(node.status ? "gone" : "never");
  const why = failure.status === 0 && failure.message === "the port is closed"
    ? "The dashboard's port is closed: the node, or 'cepa dashboard', has ended. If it does not come back, run 'cepa dashboard DIR' again."
    : failure.status === 502 ? "The node is not running. This page goes on when it is started again."
      : `The node does not answer: ${failure.message || "the page has failed"}.`;
  say($("banner-text"), node.status ? `${why} What is shown is of ${clock(node.heard)}.` : why);
  await new Promise((resolve) => {
    const timer = setTimeout(resolve, seconds * 1000);
    wake = () => { clearTimeout(timer); resolve(); };
  });
}

// show puts up the parts of the page for a state: live, gone (it was live), never (nothing is known yet), door.
function show(state) {
  const shown = state === "live" || state === "gone";
  $("main").hidden = !shown;
  $("sections").hidden = !shown;
  $("door").hidden = state !== "door";
  $("banner").hidden = state === "live" || state === "door";
  document.body.classList.toggle("stale", state === "gone");
  $("new-identity").disabled = state !== "live";
  drawState(state);
}

function drawState(state) {
  const s = node.status, pill = $("state");
  const [text, kind] = state === "door" ? ["locked", "bad"] : state !== "live" ? ["not connected", "bad"]
    : s.percent < 100 ? [`starting, ${s.percent} %`, "warn"] : s.problems?.length ? ["ready, with warnings", "warn"] : ["ready", "good"];
  say(pill, text);
  pill.className = `pill ${kind}`;
}

// loadAll asks for everything, after a connection was made.
async function loadAll() {
  const status = await ask("/v1/status");
  const again = node.status && (status.pid !== node.status.pid || status.uptime_seconds < node.status.uptime_seconds);
  if (again) {
    log.clear();
    node.digest = "";
    toast(`The node was started again ${age(status.uptime_seconds)} ago; its log begins anew.`);
  }
  const [bandwidth, lines] = await Promise.all([ask("/v1/bandwidth"), ask(`/v1/log?after=${log.last}`)]);
  node.bandwidth = bandwidth;
  plot.set(bandwidth.history);
  log.set(lines);
  setStatus(status);
  await Promise.all([loadRelays(), refresh()]);
  drawTraffic();
}

function setStatus(status) {
  // Events leave out what does not change them.
  node.status = { outside: node.status?.outside, ...status };
  node.heard = Date.now();
  drawOverview();
}

// handle takes an event.
function handle(kind, data) {
  node.heard = Date.now();
  switch (kind) {
    case "status":
      setStatus(data);
      drawState("live");
      if ((data.consensus?.digest ?? "") !== node.digest) loadRelays().catch(lateFailure);
      soon();
      break;
    case "bandwidth": {
      const b = node.bandwidth;
      b.bytes_received += data.received;
      b.bytes_sent += data.sent;
      b.history = [...b.history, data].slice(-300);
      const last = b.history.slice(-5);
      b.received_rate = last.reduce((n, s) => n + s.received, 0) / last.length;
      b.sent_rate = last.reduce((n, s) => n + s.sent, 0) / last.length;
      if (!document.hidden) {
        plot.add(data);
        drawTraffic();
        tick();
      } else plot.samples = b.history.slice();
      break;
    }
    case "circuit":
    case "stream":
      soon();
      break;
    case "log":
      log.add(data);
      break;
    case "lost": // ask for what was missed
      ask(`/v1/log?after=${log.last}`).then((l) => log.set(l)).catch(lateFailure);
      soon();
  }
}

// lateFailure is for requests beside the events: when the node has gone, the end of the events says so.
const lateFailure = (e) => e instanceof Failure || console.error(e);

let seconds = 0;

// tick is once a second: ages go on, and what has no events is asked for now and then.
function tick() {
  seconds++;
  if (node.status) node.status.uptime_seconds++;
  for (const c of node.circuits) c.age_seconds++;
  if (seconds % 15 === 0) ask("/v1/status").then((s) => { setStatus(s); drawState("live"); }).catch(lateFailure);
  else drawOverview();
  if (seconds % (node.streams.length > 0 ? 2 : 5) === 0) soon();
  else if (isClient()) drawCircuits();
}

let asked = 0, waiting = 0;

// soon refreshes now, or a second after the last time.
function soon() {
  if (waiting || document.hidden) return;
  waiting = setTimeout(() => {
    waiting = 0;
    refresh().catch(lateFailure);
  }, Math.max(0, asked + 1000 - Date.now()));
}

document.addEventListener("visibilitychange", () => {
  if (!document.hidden && node.status) {
    plot.draw();
    soon();
  }
});

// refresh asks for what changes with circuits and links.
async function refresh() {
  asked = Date.now();
  if (isClient()) {
    [node.circuits, node.streams, node.guards, node.counters] =
      await Promise.all([ask("/v1/circuits"), ask("/v1/streams"), ask("/v1/guards"), ask("/v1/counters")]);
    drawCircuits();
    drawCircuitTables();
    relays.setUsed(usedRelays());
  } else {
    [node.links, node.counters] = await Promise.all([ask("/v1/links"), ask("/v1/counters")]);
    drawLinks();
  }
  drawOverview();
}

async function loadRelays() {
  node.digest = node.status.consensus?.digest ?? "";
  relays.set(await ask("/v1/relays"), node.digest !== "");
}

async function newIdentity() {
  const button = $("new-identity");
  button.disabled = true;
  try {
    const n = await ask("/v1/new-identity", "POST");
    let text = `New identity: ${count(n.retired, "circuit")} until now ${n.retired === 1 ? "takes" : "take"} nothing new.`;
    if (n.running > 0) text += ` Streams go on over ${n.running} of them: end these in their programs if they must not.`;
    toast(text);
    soon();
  } catch (e) {
    toast(`No new identity: ${e.message}`);
  }
  setTimeout(() => { button.disabled = document.body.classList.contains("stale"); }, 1000);
}

let toastTimer = 0;

function toast(text) {
  const t = $("toast");
  t.hidden = false;
  say(t, text);
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => { t.hidden = true; }, 10_000);
}

// From here on: drawing.

function drawOverview() {
  const s = node.status;
  document.title = s.percent < 100 ? `${s.percent} % · ${clean(s.name)} · cepa` : `${clean(s.name)} · cepa`;
  say($("node-name"), s.name === s.role ? `${s.role} of ${s.network}` : `${s.role} ${s.name} of ${s.network}`);
  for (const e of document.querySelectorAll("[data-of]")) e.hidden = (e.dataset.of === "client") !== isClient();
  $("progress").hidden = s.percent >= 100;
  $("progress-bar").value = s.percent;
  say($("progress-percent"), `${s.percent} %`);
  say($("progress-doing"), s.doing);
  say($("progress-waiting"), s.waiting ? `Waiting for ${s.waiting}` : "");
  drawProblems(s.problems ?? []);
  const facts = isClient() ? clientFacts(s) : relayFacts(s);
  facts.push(["Consensus", consensusText(s.consensus)], ["Process", `${s.pid}, up ${age(s.uptime_seconds)}, version ${s.version}`]);
  const list = $("facts");
  while (list.childElementCount > 2 * facts.length) list.lastElementChild.remove();
  facts.forEach(([what, text, mono], i) => {
    if (!list.children[2 * i]) list.append(element("dt"), element("dd"));
    say(list.children[2 * i], what);
    say(list.children[2 * i + 1], text);
    list.children[2 * i + 1].className = mono ? "mono" : "";
  });
  say($("foot"), `cepa ${s.version} · times are those of this browser`);
}

function drawProblems(problems) {
  const said = JSON.stringify(problems);
  const list = $("problems");
  if (list.dataset.said === said) return;
  list.dataset.said = said;
  list.replaceChildren(...problems.map((p) => element("li", {},
    element("p", { class: "what" }, element("span", { class: "sign", "aria-hidden": "true" }, "!"), element("bdi", {}, p.text)),
    element("p", { class: "do" }, element("strong", {}, "Do: "), element("bdi", {}, p.do)))));
}

function clientFacts(s) {
  const use = (f) => node.circuits.filter((c) => c.purpose !== "directory" && f(c)).length;
  const building = use((c) => c.state === "building"), retired = use((c) => c.state !== "building" && c.retired);
  const ready = use((c) => c.state === "open" && !c.retired && c.purpose === "ready"), used = use((c) => c.state === "open" && !c.retired && c.purpose !== "ready");
  const waitingStreams = node.streams.filter((x) => x.state === "waiting").length;
  const facts = [
    ["Local port", /:0$/.test(s.address) ? "opens when a circuit is ready" : s.address],
    ["Guard", guardText(node.guards)],
    ["Circuits", `${used} for streams, ${ready} ready, ${building} being built${retired ? `, ${retired} ending` : ""}`],
    ["Streams", `${node.streams.length - waitingStreams} open, ${waitingStreams} waiting for a circuit`],
  ];
  if (s.outside?.length) facts.push(["Your address", `${s.outside.join(", ")}, as relays next to you say`]);
  return facts;
}

function relayFacts(s) {
  const c = node.counters;
  const facts = [["Serves at", s.address + (s.role !== "relay" ? "" : s.exit ? ", an exit" : ", no exit")], ["Identity", s.identity, true]];
  facts.push(["Links", String(c.links ?? node.links.length)]);
  if ("relay_circuits" in c) facts.push(["Carries", `${count(c.relay_circuits, "circuit")}, ${count(c.relay_exit_streams ?? 0, "exit stream")}`]);
  if ("budget_limit_bytes" in c) facts.push(["Memory", `${size(c.budget_used_bytes)} of ${size(c.budget_limit_bytes)} for queues`]);
  return facts;
}

function guardText(guards) {
  const used = guards.find((g) => g.in_use), up = guards.filter((g) => g.state === "up").length;
  if (!used) return guards.length ? `none answers, of ${guards.length} that may be used` : "none chosen yet";
  return `${nameOf(used)} at ${used.address}${up > 1 ? `; ${up - 1} more ${up === 2 ? "works" : "work"} too` : ""}`;
}

function consensusText(c) {
  if (!c) return "none yet";
  const now = Date.now(), fresh = new Date(c.fresh_until), valid = new Date(c.valid_until);
  const state = now > valid ? `ended at ${clock(valid)}` : now > fresh ? `next due, usable until ${clock(valid)}` : `fresh until ${clock(fresh)}`;
  return `${count(c.relays, "relay")}, ${count(c.signatures, "signature")}, ${state}`;
}

function drawTraffic() {
  const b = node.bandwidth;
  say($("rate-in"), rate(b.received_rate));
  say($("rate-out"), rate(b.sent_rate));
  say($("total-in"), `${size(b.bytes_received)} in all`);
  say($("total-out"), `${size(b.bytes_sent)} in all`);
}

const forStreams = () => node.circuits.filter((c) => c.purpose !== "directory");

function drawCircuits() {
  const list = forStreams(), box = $("picture"), width = Math.floor(box.clientWidth);
  const none = list.length === 0;
  $("circuits-empty").hidden = !none;
  box.hidden = none;
  $("legend").hidden = none;
  if (none) {
    say($("circuits-empty"), node.status.percent < 100
      ? "No circuits yet: the client is still starting. They are drawn here as they are built."
      : "There are no circuits at the moment. The client builds some as soon as they are needed; the log says what fails, if it does.");
  } else if (width > 0) {
    box.replaceChildren(drawPicture(list, node.streams, width));
  }
  const directory = node.circuits.length - list.length, waits = node.streams.filter((s) => !s.circuit).length;
  const notes = [];
  if (waits) notes.push(`${count(waits, "request")} ${waits === 1 ? "waits" : "wait"} for a circuit`);
  if (list.length > mostLanes) notes.push(`the first ${mostLanes} of ${list.length} are drawn`);
  if (directory) notes.push(`besides, ${count(directory, "circuit")} of one hop to fetch the directory`);
  const text = notes.join("; ");
  say($("circuits-note"), text && text[0].toUpperCase() + text.slice(1) + ".");
}

function drawCircuitTables() {
  replaceRows($("circuit-table"), forStreams().map((c) => row([
    { label: "Circuit", content: [`#${c.id}`] },
    { label: "Relays", content: [c.hops.map((h, i) => (i < c.built ? nameOf(h) : `(${nameOf(h)})`)).join(" → ")] },
    { label: "Use", content: [useOf(c)] },
    { label: "Age", kind: "number", content: [age(c.age_seconds)] },
    { label: "Streams", content: streamLines(c.id) },
  ])));
  replaceRows($("guard-table"), node.guards.map((g) => row([
    { label: "Relay", content: [element("bdi", {}, nameOf(g)), g.in_use ? element("span", { class: "tag" }, "in use") : null] },
    { label: "State", content: [g.state + (g.primary ? ", primary" : "") + (g.fault ? `: ${g.fault}` : "")] },
    { label: "Address", kind: "mono", content: [g.address] },
    { label: "Circuits", kind: "number", content: [String(g.circuits)] },
    { label: "Failures", kind: "number", content: [String(g.failures)] },
  ])));
}

const mostInTable = 20; // streams of one circuit

function streamLines(id) {
  const on = node.streams.filter((s) => s.circuit === id);
  if (on.length === 0) return ["none"];
  const lines = on.slice(0, mostInTable).map((s) => element("div", {}, streamText(s)));
  if (on.length > mostInTable) lines.push(element("div", { class: "muted" }, `and ${on.length - mostInTable} more`));
  return lines;
}

function usedRelays() {
  const used = new Map();
  for (const c of forStreams()) for (const h of c.hops) used.set(h.identity, "in a circuit");
  for (const g of node.guards) if (g.in_use) used.set(g.identity, "your guard");
  return used;
}

function drawLinks() {
  const shown = node.links.slice(0, 500);
  say($("links-note"), `${count(node.links.length, "link")} with neighbours${shown.length < node.links.length ? `; the oldest ${shown.length} are shown` : ""}. Clients have no name, and no address here.`);
  replaceRows($("link-table"), shown.map((l) => row([
    { label: "Neighbour", kind: "name", content: [element("bdi", {}, l.identity ? nameOf(l) : "a client"), l.draining ? element("span", { class: "tag" }, "draining") : null] },
    { label: "Address", kind: "mono", content: [`${l.direction === "out" ? "to" : "from"} ${l.address}`] },
    { label: "Circuits", kind: "number", content: [String(l.circuits)] },
    { label: "Received", kind: "number", content: [size(l.bytes_received)] },
    { label: "Sent", kind: "number", content: [size(l.bytes_sent)] },
    { label: "Queued", kind: "number", content: [size(l.queued_bytes)] },
    { label: "Age", kind: "number", content: [age(l.age_seconds)] },
  ])));
}
