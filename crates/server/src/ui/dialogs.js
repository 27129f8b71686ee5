// Actions: each is asked for in a dialog that says what it does, and its result is said in words.

import {h, patch} from "./dom.js";
import {groupPath, post} from "./feed.js";
import {count, kind, minus, plural, windowed} from "./words.js";

const dialog = () => document.getElementById("dialog");
let timer = 0;

/// Says what happened, for eyes and for screen readers.
export function say(text, bad = false) {
  const said = document.getElementById("said");
  said.textContent = text;
  said.className = `said shown${bad ? " bad" : ""}`;
  clearTimeout(timer);
  timer = setTimeout(() => { said.className = "said"; }, 8000);
}

/// Called after an action, so that what is shown is looked up again.
let changed = () => {};
export const onChange = handler => { changed = handler; };

/// Does something without asking first.
export async function act(run) {
  try { say(await run()); } catch (error) { say(error.message, true); }
  changed();
}

/// Asks, and does it. `fields`: vnodes with labels; `run(values)` returns what to say; `danger`: it hurts.
function ask({title, body, fields = [], confirm, danger = false, run}) {
  const box = dialog(), from = document.activeElement;
  let error = null, busy = false;
  const close = () => box.close();
  const submit = async event => {
    event.preventDefault();
    if (busy) return;
    busy = true; error = null; draw();
    try {
      const words = await run(Object.fromEntries(new FormData(event.target)));
      close();
      say(words);
    } catch (problem) {
      error = problem.message;
      // What cannot be any more is no reason to ask again.
      if (problem.status === 404 || problem.status === 409) { close(); say(error, true); }
    }
    busy = false;
    changed();
    if (box.open) draw();
  };
  const draw = () => patch(box, h("form", {key: title, onsubmit: submit, novalidate: false},
    h("h2", {id: "dialog-title"}, title),
    body.map(text => h("p", {}, text)),
    fields,
    h("p", {class: "error", role: "alert"}, error ?? ""),
    h("div", {class: "buttons"},
      h("button", {type: "button", onclick: close}, "Leave it"),
      h("button", {type: "submit", class: danger ? "danger" : "primary", disabled: busy}, confirm))));
  box.onclose = () => { patch(box); if (from?.isConnected) from.focus(); };
  patch(box);
  draw();
  box.showModal();
  box.querySelector("input, select, button[type=submit]")?.focus();
}

const field = (label, attributes, hint) => h("p", {class: "field"},
  h("label", {for: `f-${attributes.name}`}, label), h("input", {id: `f-${attributes.name}`, autocomplete: "off", ...attributes}),
  hint ? h("span", {class: "soft", id: `f-${attributes.name}-hint`}, hint) : null);

const called = ticket => ticket.call_id ? `the request ${ticket.call_id}` : `the ticket ${ticket.ticket}`;
const ticketPath = (group, ticket) => `${groupPath(group)}/tickets/${encodeURIComponent(ticket.ticket)}`;

export function moveTicket(group, ticket) {
  ask({
    title: "Move to another priority",
    body: [`This moves ${called(ticket)}, which waits at priority ${minus(ticket.priority)}. A lower number goes first. Within a priority its arrival counts.`],
    fields: [field("New priority", {name: "priority", type: "number", required: true, step: 1, min: -2147483648, max: 2147483647, value: ticket.priority})],
    confirm: "Move",
    run: async values => {
      const done = await post(`${ticketPath(group, ticket)}/move`, {priority: Number(values.priority)});
      return `Moved to priority ${minus(done.priority)}${done.position == null ? "." : done.position === 1 ? ": it is the first now." : `: ${plural(done.position - 1, "request goes", "requests go")} before it now.`}`;
    },
  });
}

export function cancelTicket(group, ticket) {
  ask({
    title: "Cancel this request",
    body: [`Its client gets a 409 with your reason instead of an answer. This cancels ${called(ticket)}.`],
    fields: [field("Reason, for its client", {name: "reason", type: "text", required: true, maxlength: 200})],
    confirm: "Cancel the request", danger: true,
    run: async values => {
      await post(`${ticketPath(group, ticket)}/cancel`, {reason: values.reason});
      return "Cancelled: it has left the queue.";
    },
  });
}

export function pauseGroup(group) {
  ask({
    title: `Pause ${group.name}`,
    body: [`Nothing of ${group.name} is granted until it is resumed, on any instance. ${plural(group.depth, "request")} and all that come wait. Calls under way end as they began.`],
    confirm: "Pause", danger: true,
    run: async () => { await post(`${groupPath(group.name)}/pause`, {}); return `${group.name} is paused.`; },
  });
}

export const resumeGroup = group => act(async () => {
  await post(`${groupPath(group.name)}/resume`, {});
  return `${group.name} goes on.`;
});

export function pauseKey(group, suggested = "") {
  ask({
    title: "Pause a key",
    body: [`Requests of this key wait in ${group.name} until it is resumed. Others go before them.`],
    fields: [field("Name of the key", {name: "key", type: "text", required: true, value: suggested})],
    confirm: "Pause the key", danger: true,
    run: async values => { await post(`${groupPath(group.name)}/pause`, {key: values.key}); return `The key ${values.key} is paused in ${group.name}.`; },
  });
}

export const resumeKey = (group, name) => act(async () => {
  await post(`${groupPath(group.name)}/resume`, {key: name});
  return `The key ${name} goes on in ${group.name}.`;
});

const limitWords = limit => `${limit.limit} (${kind(limit)}${limit.window_s ? ` within ${windowed(limit.window_s)}` : ""})`;

export function changeLimit(group, deployment, limit) {
  ask({
    title: `Change ${limit.limit} of ${deployment.id}`,
    body: [
      `${limitWords(limit)} is ${count(limit.configured)} by the configuration, and ${count(limit.in_force)} now; ${count(limit.used)} are used. The new value holds for the whole fleet until further notice.`,
    ],
    fields: [field("New limit", {name: "value", type: "number", required: true, min: 1, step: 1, value: limit.in_force})],
    confirm: "Change", danger: true,
    run: async values => {
      await post(`${groupPath(group.name)}/limits`, {deployment: deployment.id, limit: limit.limit, value: Number(values.value)});
      return `${limit.limit} of ${deployment.id} is ${count(Number(values.value))} until further notice.`;
    },
  });
}

export const restoreLimit = (group, deployment, limit) => act(async () => {
  await post(`${groupPath(group.name)}/limits`, {deployment: deployment.id, limit: limit.limit, value: null});
  return `${limit.limit} of ${deployment.id} is ${count(limit.configured)} again, as configured.`;
});

export function drainInstance(instance) {
  ask({
    title: "Drain this instance",
    body: [`${instance.id} is no longer ready: balancers send it nothing new. What waits there is still served.`],
    confirm: "Drain", danger: true,
    run: async () => { await post(`/admin/instances/${encodeURIComponent(instance.id)}/drain`, {}); return "The instance drains."; },
  });
}

export const resumeInstance = instance => act(async () => {
  await post(`/admin/instances/${encodeURIComponent(instance.id)}/resume`, {});
  return "The instance takes requests again.";
});

