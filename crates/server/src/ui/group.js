// One group: its limits, its queue page by page, and its open calls.

import {cancelTicket, moveTicket, pauseKey, resumeKey} from "./dialogs.js";
import {h, scroll, table} from "./dom.js";
import {get, groupPath} from "./feed.js";
import {badges, limits, pauseButton, waiting, whyBlock} from "./fleet.js";
import {count, minus, plural, short, time, waits} from "./words.js";

const PAGE = 50;
const FILTERS = ["priority", "key", "tenant", "instance"];

export const requestLink = id => `#/request/${encodeURIComponent(id)}`;

export const idLink = id => id == null ? "–" : h("a", {href: requestLink(id), title: id, class: "id"}, short(id));

/// What is shown of a group's queue; the page keeps one while it shows that group.
export class Queue {
  constructor(name) {
    this.name = name;
    this.filters = {};
    this.starts = [0];
    this.page = null;
    this.calls = [];
    this.error = null;
    this.counter = 0;
  }

  async load() {
    const mine = ++this.counter;
    const query = new URLSearchParams({from: this.starts[this.starts.length - 1], limit: PAGE});
    for (const [name, value] of Object.entries(this.filters)) if (value !== "") query.set(name, value);
    try {
      const [page, calls] = await Promise.all([get(`${groupPath(this.name)}/tickets?${query}`), get(`${groupPath(this.name)}/calls`)]);
      // A later look may have been answered first.
      if (mine !== this.counter) return;
      // The last of this page went meanwhile.
      if (!page.tickets.length && page.next == null && this.starts.length > 1) { this.starts.pop(); return this.load(); }
      [this.page, this.calls, this.error] = [page, calls.calls, null];
    } catch (error) {
      if (mine === this.counter) this.error = error;
      if (error.needsKey) throw error;
    }
  }

  turn(forward) {
    if (forward && this.page?.next != null) this.starts.push(this.page.next);
    else if (!forward && this.starts.length > 1) this.starts.pop();
  }

  filter(values) {
    this.filters = values;
    this.starts = [0];
  }
}

const filtered = queue => Object.values(queue.filters).some(value => value !== "");

function ticketTable(group, queue) {
  const steer = one => [
    h("button", {type: "button", key: "move", class: "small", onclick: () => moveTicket(group.name, one), "aria-label": `Move ${one.call_id ?? one.ticket}`}, "Move…"),
    h("button", {type: "button", key: "cancel", class: "small", onclick: () => cancelTicket(group.name, one), "aria-label": `Cancel ${one.call_id ?? one.ticket}`}, "Cancel…"),
  ];
  const columns = [
    {name: "Position", left: true, show: one => one.held ? "held: key paused" : one.position == null ? "behind its tenant's first" : one.position === 1 ? "head" : count(one.position)},
    {name: "Request", left: true, show: one => one.call_id ? idLink(one.call_id) : `ticket ${one.ticket}`},
    {name: "Priority", show: one => minus(one.priority)},
    {name: "Waits for", show: one => time(one.age_ms)},
    {name: "At least", show: one => time(one.least_wait_ms)},
    {name: "Key", left: true, show: one => one.key ?? "–"},
    {name: "Tenant", left: true, show: one => one.tenant ?? "–"},
    {name: "Tokens", show: one => count(one.tokens)},
    {name: "Instance", left: true, show: one => [h("span", {title: one.instance}, short(one.instance)), one.orphaned ? h("span", {class: "badge odd"}, "gone") : null]},
    {name: "Actions", show: one => one.orphaned ? "–" : h("span", {class: "buttons"}, steer(one))},
  ];
  return table(`Tickets waiting in ${group.name}, best first`, columns, queue.page?.tickets ?? [], {
    key: one => one.ticket, quiet: true,
    empty: !queue.page ? "Being looked up…" : filtered(queue) ? (queue.page.next == null ? "None that the filters let through." : "None among those looked at; Next looks further.") : "Nothing waits.",
  });
}

function filterForm(queue, again) {
  const apply = event => {
    event.preventDefault();
    queue.filter(Object.fromEntries(new FormData(event.currentTarget.closest("form"))));
    again();
  };
  const reset = event => { event.currentTarget.closest("form").reset(); queue.filter({}); again(); };
  return h("form", {class: "filters", role: "search", "aria-label": "Filter the queue", onsubmit: apply, onchange: apply},
    FILTERS.map(name => h("label", {key: name}, name[0].toUpperCase() + name.slice(1),
      h("input", {name, type: name === "priority" ? "number" : "text", step: name === "priority" ? 1 : null, autocomplete: "off"}))),
    h("button", {type: "submit", key: "submit"}, "Filter"), h("button", {type: "button", key: "reset", onclick: reset}, "Show all"));
}

function pager(queue, again) {
  const page = queue.page;
  const from = queue.starts.length > 1 ? (page?.from ?? 0) + 1 : 1, shown = page?.tickets.length ?? 0;
  const go = forward => () => { queue.turn(forward); again(); };
  return h("nav", {class: "pager", "aria-label": "Pages of the queue"},
    h("button", {type: "button", key: "back", onclick: go(false), disabled: queue.starts.length < 2}, "Previous"),
    h("span", {}, shown ? `${count(from)} to ${count(from + shown - 1)} of ${count(page.total)}${filtered(queue) ? ", filtered" : ""}` : page ? `0 of ${count(page.total)}` : ""),
    h("button", {type: "button", key: "next", onclick: go(true), disabled: page?.next == null}, "Next"));
}

function callTable(group, queue) {
  const columns = [
    {name: "Request", left: true, show: one => idLink(one.call_id)},
    {name: "Priority", show: one => minus(one.priority)},
    {name: "Key", left: true, show: one => one.key ?? "–"},
    {name: "Deployment", left: true, show: one => one.deployment ?? "–"},
    {name: "Waited", show: one => time(one.waited_ms)},
    {name: "Runs for", show: one => time(one.running_ms)},
    {name: "First token", show: one => one.first_token_ms == null ? "not yet" : time(one.first_token_ms)},
    {name: "Attempt", show: one => count(one.attempt)},
    {name: "Instance", left: true, show: one => h("span", {title: one.instance}, short(one.instance))},
  ];
  return table(`Open calls of ${group.name}`, columns, queue.calls.slice(0, 100), {key: one => one.call_id, empty: "No call is open.", quiet: true});
}

function keys(group) {
  return h("p", {class: "keys"},
    group.paused_keys.length ? "Paused keys: " : "No key is paused. ",
    group.paused_keys.map(name => h("span", {key: name, class: "chip"}, name,
      h("button", {type: "button", class: "small", onclick: () => resumeKey(group, name), "aria-label": `Resume key ${name}`}, "Resume"))),
    h("button", {type: "button", key: " pause", class: "small", onclick: () => pauseKey(group)}, "Pause a key…"));
}

function order(group) {
  const said = [`Order: ${group.order}`, group.strategy && `deployments by ${group.strategy}`,
    group.pace_worse_than != null && `priorities worse than ${minus(group.pace_worse_than)} are paced`,
    group.reserve && `${Math.round(group.reserve.share * 100)} % of each limit is kept for priority ${minus(group.reserve.priority)} and better`,
    group.max_queue_depth != null && `at most ${plural(group.max_queue_depth, "request")} may wait`].filter(Boolean);
  return h("p", {class: "soft"}, `${said.join("; ")}.`);
}

export function groupView(overview, queue, again) {
  const group = overview.groups.find(one => one.name === queue.name);
  if (!group) return [h("h1", {tabindex: -1}, queue.name), h("p", {}, "There is no such group. "), h("a", {href: "#/"}, "To the fleet")];
  return [
    h("div", {class: "head", key: "head"}, h("h1", {tabindex: -1}, group.name), badges(group),
      h("span", {class: "soft grow"}, waits(group)), pauseButton(group)),
    order(group),
    whyBlock(group),
    h("section", {key: "waiting", "aria-labelledby": "waiting"}, h("h2", {id: "waiting"}, "Waiting and waits"), waiting(group)),
    h("section", {key: "limits", "aria-labelledby": "limits"}, h("h2", {id: "limits"}, "Limits"), limits(group, true)),
    h("section", {key: "queue", "aria-labelledby": "queue"}, h("h2", {id: "queue"}, "Queue"), keys(group), filterForm(queue, again),
      queue.error ? h("p", {class: "error", role: "alert"}, queue.error.message) : null,
      scroll("Table of tickets", ticketTable(group, queue)), pager(queue, again)),
    h("section", {key: "calls", "aria-labelledby": "calls"}, h("h2", {id: "calls"}, "Open calls"), scroll("Table of open calls", callTable(group, queue)),
      queue.calls.length > 100 ? h("p", {class: "soft"}, `The first 100 of ${count(queue.calls.length)}.`) : null),
  ];
}
