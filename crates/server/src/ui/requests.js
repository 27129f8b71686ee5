// Requests: the latest ones, the search for one, and its life.

import {chartWidth, lifeBar} from "./chart.js";
import {cancelTicket, moveTicket} from "./dialogs.js";
import {h, scroll, table} from "./dom.js";
import {get} from "./feed.js";
import {groupLink, whyBlock} from "./fleet.js";
import {idLink, requestLink} from "./group.js";
import {clock, event, minus, plural, state, time} from "./words.js";

/// The latest requests of the fleet.
export class Latest {
  constructor() { this.requests = null; this.error = null; }
  async load() {
    try { [this.requests, this.error] = [(await get("/admin/requests?limit=50")).requests, null]; } catch (error) {
      this.error = error;
      if (error.needsKey) throw error;
    }
  }
}

/// One request.
export class Life {
  constructor(id) { this.id = id; this.life = null; this.error = null; }
  async load() {
    if (this.life?.state === "ended") return;
    try { [this.life, this.error] = [await get(`/admin/requests/${encodeURIComponent(this.id)}`), null]; } catch (error) {
      this.error = error;
      if (error.needsKey) throw error;
    }
  }
}

function search() {
  const find = submitted => {
    submitted.preventDefault();
    const id = new FormData(submitted.currentTarget).get("id").trim();
    if (id) location.hash = requestLink(id);
  };
  return h("form", {class: "filters", key: "search", role: "search", "aria-label": "Find a request", onsubmit: find},
    h("label", {class: "wide"}, "Call id (header x-litellm-call-id)", h("input", {name: "id", type: "search", autocomplete: "off", spellcheck: "false"})),
    h("button", {type: "submit"}, "Find"));
}

export function requestsView(overview, latest) {
  const columns = [
    {name: "Request", left: true, show: one => idLink(one.call_id)},
    {name: "State", left: true, show: one => state(one)},
    {name: "Group", left: true, show: one => one.group == null ? "–" : h("a", {href: groupLink(one.group)}, one.group)},
    {name: "Model", left: true, show: one => one.model ?? "–"},
    {name: "Priority", show: one => minus(one.priority)},
    {name: "Key", left: true, show: one => one.key ?? "–"},
    {name: "Came", show: one => one.age_ms == null || one.state === "ended" ? clock(one.came_unix_ms) : `${time(one.age_ms)} ago`},
    {name: "Waited", show: one => time(one.waited_ms)},
    {name: "Took", show: one => one.state === "ended" ? time(one.age_ms) : "–"},
  ];
  return [
    h("h1", {tabindex: -1}, "Requests"),
    search(),
    h("section", {key: "latest", "aria-labelledby": "latest"}, h("h2", {id: "latest"}, "Latest requests"),
      latest.error ? h("p", {class: "error", role: "alert"}, latest.error.message) : null,
      scroll("Table of requests", table("The latest requests of the fleet, newest first", columns, latest.requests ?? [], {
        key: one => one.call_id, quiet: true, empty: latest.requests ? "None yet." : "Being looked up…",
      }))),
  ];
}

/// The stretches of a life: what it did from when to when.
export function spans(life) {
  const all = [], names = {waits: "waited", calls: "at the provider", answers: "answered", pauses: "between"};
  let what = null, from = 0, last = 0;
  const next = (kind, at) => {
    if (what && at > from) all.push({what, said: names[what], from, to: at});
    what = kind; from = at;
  };
  for (const one of life.events) {
    last = Math.max(last, one.at_ms);
    if (one.what === "queued") next("waits", one.at_ms);
    else if (one.what === "granted" || one.what === "failed") next("pauses", one.at_ms);
    else if (one.what === "attempt") next("calls", one.at_ms);
    else if (one.what === "first_token") next("answers", one.at_ms);
    else if (one.what === "cancelled" || one.what === "ended") next(null, one.at_ms);
  }
  // What is under way has got so far as the instance knew when it answered.
  const now = Math.max(last, life.age_ms ?? 0);
  next(null, now);
  return {all, total: now};
}

const NOT_DETAILS = ["at_ms", "what", "ticket"];

function details(one) {
  const said = ([name, value]) => name.endsWith("_ms") ? `${name.slice(0, -3).replaceAll("_", " ")}: ${time(value)}`
    : `${name.replaceAll("_", " ")}: ${typeof value === "object" ? JSON.stringify(value) : typeof value === "number" ? minus(value) : value}`;
  return Object.entries(one).filter(([name, value]) => !NOT_DETAILS.includes(name) && value != null).map(said).join(", ");
}

function facts(life) {
  const all = [["State", state(life)], ["Group", life.group], ["Model", life.model], ["Priority", minus(life.priority)], ["Key", life.key],
    ["Instance", life.instance], ["Ticket", life.ticket]].filter(([, value]) => value != null);
  return h("dl", {class: "facts"}, all.map(([name, value]) => h("div", {key: name}, h("dt", {}, name), h("dd", {}, value))));
}

function waits(overview, life) {
  const group = overview.groups.find(one => one.name === life.group);
  if (life.state !== "waiting" || !group) return null;
  const place = life.held ? "Its key is paused: it waits until that is resumed, and keeps its place."
    : life.position == null ? "Its position is not known: with fair shares it waits behind the first of its tenant."
    : life.position === 1 ? "It is the head of the queue." : `${plural(life.position - 1, "request goes", "requests go")} before it, at priority ${minus(life.priority)}.`;
  return h("section", {key: "waits", "aria-labelledby": "waits"},
    h("h2", {id: "waits"}, "Why it waits"), h("p", {}, place), whyBlock(group),
    h("p", {class: "buttons"}, h("a", {class: "button", href: groupLink(group.name)}, "Its queue"),
      h("button", {type: "button", key: "move", onclick: () => moveTicket(life.group, life)}, "Move…"),
      h("button", {type: "button", key: "cancel", onclick: () => cancelTicket(life.group, life)}, "Cancel…")));
}

export function lifeView(overview, {id, life, error}) {
  const head = [h("h1", {tabindex: -1, class: "long"}, "Request ", h("span", {class: "id"}, id)), search()];
  if (!life) return [...head, error ? h("p", {class: "error", role: "alert"}, error.status === 404 ? "No instance knows this request. Lives are kept for a while after their end, by the instance that served them." : error.message) : h("p", {}, "Being looked up…")];
  const {all, total} = spans(life);
  const columns = [
    {name: "After", left: true, show: one => time(one.at_ms)},
    {name: "What", left: true, show: one => event(one.what)},
    {name: "Details", left: true, show: one => details(one) || "–"},
  ];
  return [
    ...head, facts(life), waits(overview, life),
    h("section", {key: "life", "aria-labelledby": "life"}, h("h2", {id: "life"}, "Its life"),
      lifeBar(all, total, chartWidth(false)),
      h("p", {class: "legend"}, [["waits", "waited"], ["calls", "at the provider"], ["answers", "answered"], ["pauses", "between"]].map(([what, said]) =>
        h("span", {key: what}, h("svg", {class: "swatch", viewBox: "0 0 12 12", "aria-hidden": "true"}, h("rect", {class: `span ${what}`, width: 12, height: 12, rx: 3})), said))),
      table("What happened to this request, in order", columns, life.events, {quiet: true})),
  ];
}
