// The admin API: single requests, and the events that keep the page live.

const KEY = "vorrang-key";

export const key = {
  get: () => sessionStorage.getItem(KEY),
  set: value => sessionStorage.setItem(KEY, value),
  forget: () => sessionStorage.removeItem(KEY),
};

/// An answer that is an error, in the words for it.
export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
  get needsKey() { return this.status === 401 || this.status === 403; }
}

const WORDS = {
  0: "This instance does not answer.",
  404: "This is not there (any more).",
  409: "Too late: it has been granted or has left the queue meanwhile.",
  503: "The instance that would have to do it does not answer. Try again in a moment.",
};

async function send(path, options) {
  const headers = {accept: "application/json", ...options.headers};
  const value = key.get();
  if (value) headers.authorization = `Bearer ${value}`;
  try {
    return await fetch(path, {...options, headers, cache: "no-store", credentials: "omit", redirect: "error"});
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(0, WORDS[0]);
  }
}

async function refusal(answer) {
  let message = null;
  try { message = (await answer.json()).error.message; } catch { /* no JSON: the status has to do */ }
  const words = WORDS[answer.status];
  return new Refused(answer.status, words ? (message && message !== words ? `${words} (${message})` : words) : message ?? `The instance answered ${answer.status}.`);
}

/// How long an answer may take, in ms: longer than the instance itself waits for others.
const PATIENCE = 10000;

export async function get(path) {
  const answer = await send(path, {signal: AbortSignal.timeout(PATIENCE)});
  if (!answer.ok) throw await refusal(answer);
  return answer.json();
}

export async function post(path, body) {
  const answer = await send(path, {method: "POST", headers: {"content-type": "application/json"}, body: JSON.stringify(body)});
  if (!answer.ok) throw await refusal(answer);
  return answer.json();
}

export const groupPath = name => `/admin/groups/${encodeURIComponent(name)}`;

/// No news for so long, in ms, and a connection is given up: news come every second.
const SILENCE = 6000;
const LONGEST_PAUSE = 15000;

/// Reads events for as long as the page is there. `news(overview)`; `lost(error, retryMs)`, where a lack of a key ends it.
export function follow(news, lost) {
  let pause = 500, stopped = false, abort = null, timer = 0;
  const run = async () => {
    abort = new AbortController();
    let watch = 0;
    const heard = () => { clearTimeout(watch); watch = setTimeout(() => abort.abort(), SILENCE); };
    let why = new Refused(0, "The connection ended.");
    try {
      heard();
      const answer = await send("/admin/events", {signal: abort.signal, headers: {accept: "text/event-stream"}});
      if (!answer.ok) throw await refusal(answer);
      for await (const event of events(answer.body)) {
        heard();
        if (event.name === "overview") { news(JSON.parse(event.data)); pause = 500; }
      }
    } catch (error) {
      why = error instanceof Refused ? error : new Refused(0, error.name === "AbortError" ? "No news for too long." : "The connection broke.");
    }
    clearTimeout(watch);
    if (stopped) return;
    if (why.needsKey) { stopped = true; return lost(why, null); }
    pause = Math.min(pause * 2, LONGEST_PAUSE);
    // Pages that lost one instance together do not come back together.
    const wait = pause * (0.75 + Math.random() / 2);
    lost(why, wait);
    timer = setTimeout(run, wait);
  };
  run();
  return () => { stopped = true; clearTimeout(timer); abort?.abort(); };
}

async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const {done, value} = await reader.read();
    if (done) return;
    rest += value;
    for (let end; (end = rest.search(/\r?\n\r?\n/)) >= 0;) {
      const block = rest.slice(0, end);
      rest = rest.slice(end).replace(/^\r?\n\r?\n/, "");
      const event = {name: "message", data: ""};
      for (const line of block.split(/\r?\n/)) {
        if (line.startsWith("event:")) event.name = line.slice(6).trim();
        else if (line.startsWith("data:")) event.data += line.slice(5).trim();
      }
      if (event.data) yield event;
    }
  }
}
