// Asks the control API of the port that the page comes from. The token comes in the fragment of the address, is taken
// out of it at once, and stays in this tab.

const kept = "cepa-token";
let token = "";

// takeToken finds the token in the address, or what this tab has kept.
export function takeToken() {
  const given = new URLSearchParams(location.hash.slice(1)).get("token");
  if (given !== null) {
    history.replaceState(null, "", location.pathname);
    setToken(given);
  } else if (!token) {
    try { token = sessionStorage.getItem(kept) ?? ""; } catch { /* no storage: until the page is loaded again */ }
  }
  return token !== "";
}

export function setToken(text) {
  token = text.trim().replace(/^.*[#&]token=/, "");
  try { sessionStorage.setItem(kept, token); } catch { /* as above */ }
}

export function forgetToken() {
  token = "";
  try { sessionStorage.removeItem(kept); } catch { /* as above */ }
}

// Failure is an answer that is no success, or (status 0) none.
export class Failure extends Error {
  constructor(status, text) {
    super(text);
    this.status = status;
  }
}

async function request(method, path, signal) {
  if (!/^[\x21-\x7e]*$/.test(token)) throw new Failure(401, "the token is none"); // it could not be in a header
  let answer;
  try {
    answer = await fetch(path, {
      method, signal, headers: { Authorization: `Bearer ${token}` },
      cache: "no-store", credentials: "omit", redirect: "error", referrerPolicy: "no-referrer", mode: "same-origin",
    });
  } catch (e) {
    throw new Failure(0, e.name === "TimeoutError" ? "no answer in time" : "the port is closed");
  }
  if (answer.ok) return answer;
  let text = `status ${answer.status}`;
  try { text = (await answer.json()).error || text; } catch { /* not of the API */ }
  throw new Failure(answer.status, text);
}

// ask makes a request and gives the answer.
export async function ask(path, method = "GET") {
  const answer = await request(method, path, AbortSignal.timeout(10_000));
  try {
    return await answer.json();
  } catch {
    throw new Failure(0, "the answer was cut off");
  }
}

const maxEvent = 1 << 20; // characters
const silence = 40_000; // milliseconds; the node says something every 15 seconds

// events reads server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html). EventSource cannot
// send the token in a header. The promise gives a function that reads until the stream ends, and then throws.
export async function events(kinds) {
  const abort = new AbortController();
  let timer = setTimeout(() => abort.abort(), silence);
  const answer = await request("GET", `/v1/events?kinds=${kinds.join(",")}`, abort.signal);
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  return async (handle) => {
    let rest = "", kind = "", data = "";
    const take = (line) => {
      if (line === "") {
        if (kind && data) handle(kind, JSON.parse(data));
        kind = data = "";
      } else if (line.startsWith("event:")) kind = line.slice(6).trim();
      else if (line.startsWith("data:")) data += line.slice(5).replace(/^ /, "");
    };
    try {
      for (;;) {
        const { value, done } = await reader.read();
        if (done) throw new Failure(0, "the node has closed the connection");
        clearTimeout(timer);
        timer = setTimeout(() => abort.abort(), silence);
        const lines = (rest + value).split("\n");
        rest = lines.pop();
        if (rest.length + data.length > maxEvent) throw new Failure(0, "an event is too long");
        lines.forEach((l) => take(l.replace(/\r$/, "")));
      }
    } catch (e) {
      throw e instanceof Failure ? e : new Failure(0, "the connection to the node broke");
    } finally {
      clearTimeout(timer);
      abort.abort();
    }
  };
}
