// How figures and states are said.

export const CLASSES = ["<0", "0", "1-9", "10-99", "100-999", "1000+"];

/// Best first; those that are not known come last.
export const byClass = (a, b) => rank(a) - rank(b);
const rank = name => (CLASSES.indexOf(name) + CLASSES.length + 1) % (CLASSES.length + 1);

export const count = n => n == null ? "–" : String(Math.round(n)).replace(/\B(?=(\d{3})+$)/g, " ");
export const plural = (n, one, many = `${one}s`) => `${count(n)} ${n === 1 ? one : many}`;
export const minus = n => n == null ? "–" : String(n).replace("-", "−");

/// A length of time in ms.
export function time(ms) {
  if (ms == null) return "–";
  if (ms <= 0) return "0";
  if (ms < 999.5) return `${Math.max(1, Math.round(ms))} ms`;
  const s = ms / 1000;
  if (s < 9.95) return `${s.toFixed(1)} s`;
  if (s < 119.5) return `${Math.round(s)} s`;
  const minutes = Math.round(s / 60);
  if (minutes < 120) return `${minutes} min`;
  return minutes < 2880 ? `${Math.round(minutes / 60)} h` : `${Math.round(minutes / 1440)} d`;
}

/// The time of day of a moment, as this browser's user has it.
export const clock = unixMs => unixMs == null ? "–" : new Date(unixMs).toLocaleTimeString();

/// A window's length as people say it.
export const windowed = s => s == null ? "" : s === 60 ? "a minute" : s === 3600 ? "an hour" : s === 86400 ? "a day" : s < 120 ? `${s} s` : time(s * 1000);

export const short = id => id == null ? "–" : id.length > 16 ? `${id.slice(0, 8)}…${id.slice(-4)}` : id;

export function list(parts) {
  return parts.length < 2 ? parts.join("") : `${parts.slice(0, -1).join(", ")} and ${parts[parts.length - 1]}`;
}

const REASONS = {
  requests: "room for requests",
  tokens: "room for tokens",
  input_tokens: "room for input tokens",
  output_tokens: "room for output tokens",
  concurrency: "an open call to end",
  cooldown: "a cooldown to end",
  probing: "the probe of a deployment that failed",
  pacing: "its pace",
  reserve: "room beside what is kept for better priorities",
  paused: "the group or its key to be resumed",
};

/// The words for what the head waits for.
export const reasons = words => list(words.map(word => REASONS[word] ?? word));

const KINDS = {requests: "requests", tokens: "tokens", input_tokens: "input tokens", output_tokens: "output tokens", concurrency: "calls at once"};
export const kind = limit => KINDS[limit.kind] ?? limit.kind;
export const isFull = limit => limit.in_force != null && limit.used >= limit.in_force;
export const isChanged = limit => limit.in_force !== limit.configured;

/// Why the head waits: the first sentence, and then what it is made of.
export function why(group) {
  if (group.backend_answers === false) return ["Redis does not answer: nothing of this group is granted by it, and the figures are the last that are known. /health/readiness says more."];
  if (group.recovering) return ["The group's shared state was lost and is being rebuilt. Nothing is granted until all instances have reported."];
  if (group.paused) return [`The group is paused: nothing is granted${group.depth ? `, and ${plural(group.depth, "request")} ${group.depth === 1 ? "waits" : "wait"}` : ""}, until it is resumed.`];
  const held = group.held ? [`${plural(group.held, "request")} ${group.held === 1 ? "waits" : "wait"} because of a paused key (${list(group.paused_keys)}), and ${group.held === 1 ? "goes" : "go"} on when it is resumed.`] : [];
  if (!group.depth) return held.length ? held : ["Nothing waits."];
  if (!group.reasons.length) return ["The head of the queue is about to go.", ...held];
  const soon = group.next_free_ms == null ? "" : group.next_free_ms <= 0 ? "" : ` It takes at least ${time(group.next_free_ms)} more.`;
  const said = [`The head of the queue waits for ${reasons(group.reasons)}.${soon}`];
  for (const one of group.deployments) {
    if (one.cooling_ms) said.push(`${one.id} is left alone for another ${time(one.cooling_ms)}: ${one.cooling_status ? `it answered ${one.cooling_status}` : "it could not be reached"}.`);
    for (const limit of one.limits.filter(isFull)) {
      const span = limit.window_s ? ` within ${windowed(limit.window_s)}` : "";
      const other = isChanged(limit) ? ` That limit was changed; the configured one is ${count(limit.configured)}.` : "";
      said.push(`${one.id} has used ${count(limit.used)} of ${count(limit.in_force)} ${kind(limit)}${span}.${other}`);
    }
    if (one.pace_ms && group.reasons.includes("pacing")) said.push(`${one.id} takes the next paced request in ${time(one.pace_ms)}.`);
  }
  return [...said, ...held];
}

/// What waits in a group, and what is held.
export const waits = group => `${count(group.depth)} waiting, ${group.held ? `${count(group.held)} held, ` : ""}${count(group.open)} open`;

const EVENTS = {
  came: "came", queued: "entered the queue", granted: "was granted", attempt: "went to the provider", first_token: "first token",
  failed: "the attempt failed", moved: "was moved", cancelled: "was cancelled", fell_back: "fell back to another group",
  spilled: "left for another group", ended: "ended",
};
export const event = what => EVENTS[what] ?? what;

const STATES = {waiting: "waits", calling: "at the provider", answering: "is being answered", ended: "ended"};
export const state = life => life.state === "ended" ? `${life.outcome ?? "ended"}${life.status ? ` (${life.status})` : ""}` : STATES[life.state] ?? life.state;
