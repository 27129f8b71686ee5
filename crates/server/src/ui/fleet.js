// The fleet: what waits where, and why; and the parts that a group's own page has as well.

import {bar, chartWidth, stacked, swatch} from "./chart.js";
import {changeLimit, drainInstance, pauseGroup, restoreLimit, resumeGroup, resumeInstance} from "./dialogs.js";
import {h, scroll, table} from "./dom.js";
import {byClass, count, isChanged, isFull, kind, plural, short, time, waits, why, windowed} from "./words.js";

export const groupLink = name => `#/group/${encodeURIComponent(name)}`;

const badge = (text, look = "") => h("span", {class: `badge ${look}`, key: text}, text);

export function badges(group) {
  const cooling = group.deployments.filter(one => one.cooling_ms).length;
  const changed = group.deployments.flatMap(one => one.limits).filter(isChanged).length;
  return [
    group.paused && badge("paused", "bad"),
    group.recovering && badge("recovering", "bad"),
    cooling > 0 && badge(`${cooling} of ${group.deployments.length} cooling`, "odd"),
    changed > 0 && badge(`${plural(changed, "limit")} changed`, "odd"),
    group.paused_keys.length > 0 && badge(`${plural(group.paused_keys.length, "key")} paused`, "odd"),
    group.configurations > 1 && badge(`${group.configurations} configurations`, "odd"),
  ].filter(Boolean);
}

export const pauseButton = group => group.paused
  ? h("button", {type: "button", key: "pause", class: "primary", onclick: () => resumeGroup(group), "aria-label": `Resume ${group.name}`}, "Resume")
  : h("button", {type: "button", key: "pause", onclick: () => pauseGroup(group), "aria-label": `Pause ${group.name}`}, "Pause…");

export function whyBlock(group) {
  const [first, ...rest] = why(group);
  const look = group.paused || group.recovering ? "bad" : group.depth && group.reasons.length ? "odd" : "good";
  return h("div", {class: `why ${look}`}, h("p", {}, first), rest.length ? h("ul", {}, rest.map(text => h("li", {}, text))) : null);
}

/// Those that anything came of lately.
const usedClasses = group => group.classes.filter(one => one.waiting || one.granted_per_minute || one.waits?.count);

export function classTable(group) {
  const rows = usedClasses(group).sort((a, b) => byClass(a.class, b.class));
  const columns = [
    {name: "Priority", left: true, show: one => [swatch(one.class), h("span", {}, one.class.replace("<0", "below 0"))]},
    {name: "Waiting", show: one => count(one.waiting)},
    {name: "Granted/min", show: one => one.granted_per_minute == null ? "–" : one.granted_per_minute < 10 ? +one.granted_per_minute.toFixed(1) : count(one.granted_per_minute)},
    {name: "Wait p50", show: one => time(one.waits?.p50_ms)},
    {name: "Wait p99", show: one => time(one.waits?.p99_ms)},
  ];
  return table(`${group.name} by priority class; waits of the last 5 minutes`, columns, rows, {key: one => one.class, empty: "No request in the last minutes.", quiet: true});
}

const waitedLately = group => group.depth > 0 || Object.values(group.history.classes).some(values => values.some(v => v > 0));

/// The chart of what waits, and the table of the classes. A group where nothing waited lately needs no chart.
export function waiting(group) {
  const waited = waitedLately(group);
  const classes = h("div", {key: "classes"}, classTable(group));
  if (!waited) return usedClasses(group).length ? classes : null;
  return h("div", {key: "waiting", class: "pair"}, h("figure", {},
    h("figcaption", {class: "soft"}, "Waiting in the fleet, by priority"),
    stacked(group.history, {width: chartWidth(true), label: `Requests waiting in ${group.name}`})), classes);
}

/// Use against each limit. `steer`: with what changes it.
export function limits(group, steer) {
  const shown = group.deployments.map(one => h("li", {key: one.id, class: "deployment"},
    h("div", {class: "name"}, h("b", {}, one.id), h("span", {class: "soft"}, one.model !== one.id ? ` ${one.model}` : ""),
      one.cooling_ms ? badge(`cooling, ${time(one.cooling_ms)} more${one.cooling_status ? `, after ${one.cooling_status}` : ""}`, "odd") : null,
      one.pace_ms ? badge(`paced, next in ${time(one.pace_ms)}`) : null,
      h("span", {class: "soft open"}, `${plural(one.open, "call")} open`)),
    one.limits.length ? null : h("p", {class: "soft"}, "No limits."),
    one.limits.map(limit => h("div", {key: `${limit.limit}/${limit.window_s}`, class: "limit"},
      h("span", {class: "what"}, h("b", {}, limit.limit), h("span", {class: "soft"}, ` ${kind(limit)}${limit.window_s ? ` in ${windowed(limit.window_s)}` : ""}`)),
      bar(limit),
      h("span", {class: "figure"}, `${count(limit.used)} of ${count(limit.in_force)}`, isFull(limit) ? h("b", {class: "badmark"}, " full") : null),
      isChanged(limit) ? h("span", {class: "note"}, `until further notice; configured: ${count(limit.configured)}`) : null,
      steer ? h("span", {class: "buttons"},
        h("button", {type: "button", key: "change", class: "small", onclick: () => changeLimit(group, one, limit), "aria-label": `Change ${limit.limit} of ${one.id}`}, "Change…"),
        isChanged(limit) ? h("button", {type: "button", key: "restore", class: "small", onclick: () => restoreLimit(group, one, limit), "aria-label": `Put ${limit.limit} of ${one.id} back to ${limit.configured}`}, "Put back") : null) : null))));
  return h("ul", {class: `deployments${steer ? " steer" : ""}`}, shown);
}

function tile(name, figure, detail, look) {
  const mark = {bad: "✗", odd: "!", good: "✓"}[look];
  return h("div", {class: `tile ${look}`, key: name},
    h("div", {class: "name"}, h("span", {}, name), h("span", {class: "mark", "aria-hidden": "true"}, mark)),
    h("div", {class: "figure"}, figure), h("div", {class: "detail"}, detail));
}

function tiles({groups, instances}) {
  const sum = (all, what) => all.reduce((total, one) => total + (what(one) ?? 0), 0);
  const waiting = sum(groups, one => one.depth), paused = groups.filter(one => one.paused), deployments = groups.flatMap(one => one.deployments);
  const cooling = deployments.filter(one => one.cooling_ms).length, ready = instances.filter(one => one.ready && one.answered).length;
  const full = deployments.flatMap(one => one.limits).filter(isFull).length;
  const changed = deployments.flatMap(one => one.limits).filter(isChanged).length;
  const busiest = [...groups].sort((a, b) => b.depth - a.depth)[0];
  return h("div", {class: "tiles"},
    tile("Waiting", count(waiting), waiting ? `${count(busiest.depth)} of them in ${busiest.name}` : "nothing waits", waiting ? "odd" : "good"),
    tile("Open calls", count(sum(groups, one => one.open)), `in ${plural(groups.length, "group")}`, "good"),
    tile("Paused", count(paused.length), paused.length ? paused.map(one => one.name).join(", ") : "no group", paused.length ? "bad" : "good"),
    tile("Cooling", count(cooling), `of ${plural(deployments.length, "deployment")}`, cooling ? "bad" : "good"),
    tile("Limits", full ? `${full} full` : "room", changed ? `${changed} changed until further notice` : "as configured", full || changed ? "odd" : "good"),
    tile("Instances", `${ready} of ${instances.length}`, ready === instances.length ? "ready" : "are ready", ready === instances.length ? "good" : "bad"));
}

function card(group, i) {
  return h("section", {key: group.name, "aria-labelledby": `group-${i}`},
    h("div", {class: "head"}, h("h2", {id: `group-${i}`}, h("a", {href: groupLink(group.name)}, group.name)), badges(group),
      h("span", {class: "soft grow"}, waits(group)), pauseButton(group)),
    whyBlock(group),
    waiting(group),
    limits(group, false));
}

function instanceTable(instances, answeredBy) {
  const state = one => !one.answered ? "does not answer" : one.draining ? "drains" : one.ready ? "ready" : "not ready";
  const columns = [
    {name: "Instance", left: true, show: one => [h("span", {title: one.id}, short(one.id)), one.id === answeredBy ? h("span", {class: "soft"}, " (answers here)") : null]},
    {name: "State", left: true, show: one => badge(state(one), one.ready && one.answered ? "good" : "bad")},
    {name: "Waiting", show: one => count(one.waiting)},
    {name: "Open calls", show: one => count(one.open)},
    {name: "Up", show: one => one.uptime_s == null ? "–" : time(one.uptime_s * 1000)},
    {name: "Version", show: one => one.version ?? "–"},
    {name: "Action", show: one => !one.answered ? "–" : one.draining
      ? h("button", {type: "button", class: "small", onclick: () => resumeInstance(one), "aria-label": `Resume instance ${short(one.id)}`}, "Resume")
      : h("button", {type: "button", class: "small", onclick: () => drainInstance(one), "aria-label": `Drain instance ${short(one.id)}`}, "Drain…")},
  ];
  return table("Instances of the fleet", columns, instances, {key: one => one.id, quiet: true});
}

export function fleet(overview) {
  // What needs a look comes first; else the configuration's order stays, so that nothing jumps.
  const rank = group => group.paused || group.recovering || waitedLately(group) ? 0 : 1;
  const groups = [...overview.groups].sort((a, b) => rank(a) - rank(b));
  const idle = overview.groups.every(one => !one.depth && !one.open && !one.classes.some(row => row.waits?.count));
  return [
    h("h1", {tabindex: -1}, "Fleet"),
    tiles(overview),
    idle ? h("p", {class: "soft block"}, "Nothing has come lately. With the demo, `vorrang --demo-load` sends traffic that queues.") : null,
    groups.map(card),
    h("section", {key: " instances", "aria-labelledby": "instances"}, h("h2", {id: "instances"}, "Instances"), scroll("Table of instances", instanceTable(overview.instances, overview.answered_by))),
  ];
}
