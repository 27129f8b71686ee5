// Charts: drawn at the width they have, so that their text keeps its size.

import {h} from "./dom.js";
import {byClass, count, CLASSES, list, time} from "./words.js";

export const classIndex = name => { const i = CLASSES.indexOf(name); return i < 0 ? CLASSES.length : i; };

/// A coloured mark beside a class' name.
export const swatch = name => h("svg", {class: `swatch c${classIndex(name)}`, viewBox: "0 0 12 12", "aria-hidden": "true"}, h("rect", {width: 12, height: 12, rx: 3}));

/// The room for a chart: the whole width of the page's part, or half of it where two stand beside one another.
export function chartWidth(half) {
  const page = document.documentElement.clientWidth, narrow = page <= 700;
  const room = Math.min(page, 1400) - (narrow ? 50 : 86);
  return Math.max(240, half && page > 1000 ? (room - 26) / 2 : room);
}

function ticks(most, wanted) {
  const raw = Math.max(most, 1) / wanted, power = 10 ** Math.floor(Math.log10(raw));
  const step = Math.max(1, [1, 2, 5, 10].map(f => f * power).find(s => s >= raw * 0.999));
  const all = [];
  for (let v = 0; v < most + step * 0.999; v += step) all.push(Math.round(v));
  return all.length > 1 ? all : [0, step];
}

const tip = () => document.getElementById("tip");

export function hideTip() { tip().style.display = "none"; }

function showTip(event, text) {
  const box = tip();
  box.textContent = text;
  box.style.display = "block";
  box.style.left = `${Math.max(4, Math.min(event.clientX + 14, innerWidth - box.offsetWidth - 8))}px`;
  box.style.top = `${event.clientY + 14}px`;
}

/// Requests that wait, by class, over the last minutes: the best class at the bottom.
export function stacked(history, {width, height = 150, label}) {
  const left = 40, right = 8, top = 10, bottom = 22;
  const names = Object.keys(history.classes).filter(name => history.classes[name].some(v => v > 0)).sort(byClass);
  const length = Math.max(...Object.values(history.classes).map(values => values.length), history.depth?.length ?? 0, 2);
  const value = (name, k) => history.classes[name][k] ?? 0;
  const sums = Array.from({length}, (_, k) => names.reduce((sum, name) => sum + value(name, k), 0));
  const ys = ticks(Math.max(...sums), 3), high = ys[ys.length - 1];
  const span = (length - 1) * history.step_s;
  const x = k => left + (width - left - right) * k / (length - 1);
  const y = v => top + (height - top - bottom) * (1 - v / high);
  const base = sums.map(() => 0);
  const areas = names.map(name => {
    const down = base.map((v, k) => `${x(k).toFixed(1)},${y(v).toFixed(1)}`);
    base.forEach((_, k) => { base[k] += value(name, k); });
    const up = base.map((v, k) => `${x(k).toFixed(1)},${y(v).toFixed(1)}`);
    return h("polygon", {key: name, class: `c${classIndex(name)}`, points: up.concat(down.reverse()).join(" ")});
  });
  const marks = [0, 0.5, 1].map(part => h("text", {
    key: `x${part}`, x: left + (width - left - right) * part, y: height - 4,
    "text-anchor": part === 0 ? "start" : part === 1 ? "end" : "middle",
  }, part === 1 ? "now" : `−${time(span * (1 - part) * 1000)}`));
  const grid = ys.map(v => h("g", {key: `y${v}`},
    h("line", {class: v ? "grid" : "zero", x1: left, x2: width - right, y1: y(v), y2: y(v)}),
    h("text", {x: left - 6, y: y(v) + 4, "text-anchor": "end"}, count(v))));
  const now = sums[length - 1], most = Math.max(...sums);
  const said = names.length ? `now ${count(now)}${now ? ` (${list(names.filter(n => value(n, length - 1)).map(n => `${count(value(n, length - 1))} of priority ${n}`))})` : ""}, at most ${count(most)}` : "nothing waited";
  const watch = event => {
    const box = event.currentTarget.getBoundingClientRect();
    const k = Math.round(((event.clientX - box.left) * width / box.width - left) / (width - left - right) * (length - 1));
    if (k < 0 || k >= length) return hideTip();
    const ago = (length - 1 - k) * history.step_s;
    showTip(event, [ago ? `${time(ago * 1000)} ago` : "now", ...[...names].reverse().map(name => `priority ${name}: ${count(value(name, k))}`), `together: ${count(sums[k])}`].join("\n"));
  };
  return h("svg", {
    class: "chart", viewBox: `0 0 ${width} ${height}`, width, height, role: "img",
    "aria-label": `${label}, over the last ${time(span * 1000)}: ${said}.`, onpointermove: watch, onpointerleave: hideTip,
  }, grid, areas, marks);
}

/// How much of a limit is used. The figures are beside it; the line is where the configured limit is, if another is in force.
export function bar(limit) {
  const scale = Math.max(limit.in_force ?? 0, limit.configured ?? 0, limit.used ?? 0, 1), at = v => (100 * v / scale).toFixed(2);
  const full = limit.in_force != null && limit.used >= limit.in_force;
  return h("svg", {class: `use${full ? " full" : ""}`, viewBox: "0 0 100 10", preserveAspectRatio: "none", "aria-hidden": "true"},
    h("rect", {class: "all", width: 100, height: 10}),
    h("rect", {class: "room", width: at(limit.in_force ?? scale), height: 10}),
    h("rect", {class: "used", width: at(Math.min(limit.used ?? 0, scale)), height: 10}),
    limit.configured != null && limit.configured !== limit.in_force
      ? h("rect", {class: "configured", x: Math.min(99.6, at(limit.configured)), width: 0.4, height: 10}) : null);
}

/// A request's life as one bar: what it did in which part of its time. `spans`: `[{what, from, to}]` in ms.
export function lifeBar(spans, total, width) {
  const height = 62, end = Math.max(total, 1), x = t => 4 + (width - 8) * t / end;
  const drawn = spans.map((span, i) => h("g", {key: i},
    h("rect", {class: `span ${span.what}`, x: x(span.from).toFixed(1), width: Math.max(2, x(span.to) - x(span.from)).toFixed(1), y: 8, height: 26, rx: 3}),
    x(span.to) - x(span.from) > 84 ? h("text", {class: "on", x: (x(span.from) + 8).toFixed(1), y: 26}, `${span.said} ${time(span.to - span.from)}`) : null));
  const marks = [0, 0.5, 1].map(part => h("text", {
    key: `m${part}`, x: x(end * part), y: 54, "text-anchor": part === 0 ? "start" : part === 1 ? "end" : "middle",
  }, time(end * part)));
  const label = spans.map(span => `${span.said} ${time(span.to - span.from)}`).join(", then ");
  return h("svg", {class: "chart", viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": `Its time: ${label || "just came"}.`}, drawn, marks);
}
