// The page: which view is shown, and what keeps it live.

import {hideTip} from "./chart.js";
import {onChange, say} from "./dialogs.js";
import {h, patch} from "./dom.js";
import {follow, key} from "./feed.js";
import {fleet} from "./fleet.js";
import {groupView, Queue} from "./group.js";
import {Latest, Life, lifeView, requestsView} from "./requests.js";
import {short, time} from "./words.js";

const at = id => document.getElementById(id);

/// How often a view's own parts are looked up, in ms.
const LOOK_EVERY = 2000;
const STALE_AFTER = 4000;

const page = {overview: null, heard: 0, error: null, held: false, stale: false, signedOut: false, stop: null, view: null, looks: 0};

// --- views ---

function route() {
  const [, name = "", id = ""] = location.hash.split("/");
  let decoded = id;
  try { decoded = decodeURIComponent(id); } catch { /* written by hand: as it is */ }
  if (name === "group" && id) return {title: decoded, part: new Queue(decoded), show: groupView, nav: "#/"};
  if (name === "request" && id) return {title: `Request ${decoded}`, part: new Life(decoded), show: lifeView, nav: "#/requests"};
  if (name === "requests") return {title: "Requests", part: new Latest(), show: requestsView, nav: "#/requests"};
  return {title: "Fleet", part: null, show: fleet, nav: "#/"};
}

async function look() {
  const {view} = page;
  if (!view.part || page.signedOut) return;
  page.looks += 1;
  try { await view.part.load(); } catch (error) { return signOut(error.message); } finally { page.looks -= 1; }
  if (view === page.view) draw();
}

function draw() {
  if (page.signedOut || (page.held && page.view.drawn)) return;
  if (!page.overview) { patch(at("main"), h("p", {class: "soft block", key: "none"}, page.error ?? "Connecting to the fleet…")); return; }
  page.view.drawn = true;
  patch(at("main"), page.view.show(page.overview, page.view.part, look));
}

function go(event) {
  page.view = route();
  document.title = `${page.view.title} – Vorrang`;
  // The parts of one view are none of another.
  patch(at("main"));
  hideTip();
  nav();
  draw();
  look();
  if (event) { scrollTo(0, 0); at("main").querySelector("h1")?.focus(); }
}

function nav() {
  const links = [["#/", "Fleet"], ["#/requests", "Requests"]];
  patch(at("nav"), links.map(([href, text]) => h("a", {href, "aria-current": page.view.nav === href ? "page" : null}, text)));
}

// --- live ---

function status() {
  const silent = Date.now() - page.heard, overview = page.overview;
  const stale = !page.signedOut && overview != null && silent > STALE_AFTER;
  if (stale !== page.stale) say(stale ? "No news from the fleet: what is shown is old." : "Live again.", stale);
  page.stale = stale;
  document.body.classList.toggle("stale", stale);
  const [look, text] = page.signedOut ? ["odd", "A key is needed"]
    : stale ? ["bad", `Old: the last news came ${time(silent)} ago. Connecting again…`]
    : !overview ? ["odd", page.error ?? "Connecting…"]
    : page.held ? ["odd", "Held: what is shown stands still"]
    : ["good", `Live, by instance ${short(overview.answered_by)}`];
  patch(at("status"), h("span", {class: `light ${look}`, "aria-hidden": "true"}, {good: "●", odd: "◆", bad: "▲"}[look]), h("span", {}, text));
}

function start() {
  page.stop?.();
  page.signedOut = false;
  page.stop = follow(overview => {
    [page.overview, page.heard, page.error] = [overview, Date.now(), null];
    at("forget").hidden = !key.get();
    draw();
    status();
  }, (error, wait) => {
    if (error.needsKey) return signOut(error.message);
    page.error = `${error.message} Trying again in ${time(wait)}.`;
    if (!page.overview) draw();
    status();
  });
}

// --- the key ---

function signOut(why) {
  page.stop?.();
  page.signedOut = true;
  page.overview = null;
  key.forget();
  at("forget").hidden = true;
  at("dialog").close();
  const enter = event => {
    event.preventDefault();
    key.set(new FormData(event.currentTarget).get("key").trim());
    patch(at("main"));
    start();
    draw();
  };
  patch(at("main"));
  patch(at("main"), h("section", {class: "key", key: "key", "aria-labelledby": "key-title"},
    h("h1", {id: "key-title", tabindex: -1}, "Which key?"),
    h("p", {}, "The master key, or a key with ", h("code", {}, "admin: true"), ". It is kept in this tab only, and sent to this server only."),
    why ? h("p", {class: "error", role: "alert"}, why) : null,
    h("form", {onsubmit: enter},
      h("label", {for: "key"}, "Key"),
      h("input", {id: "key", name: "key", type: "password", required: true, autocomplete: "off", spellcheck: "false"}),
      h("button", {type: "submit", class: "primary"}, "Show the queue"))));
  at("key").focus();
  status();
}

// --- the bar ---

function theme(value) {
  if (value) document.documentElement.dataset.theme = value; else delete document.documentElement.dataset.theme;
}

function bar() {
  const kept = localStorage.getItem("vorrang-theme") ?? "";
  at("theme").value = kept;
  at("theme").onchange = event => { localStorage.setItem("vorrang-theme", event.target.value); theme(event.target.value); };
  at("hold").onclick = event => {
    page.held = !page.held;
    event.currentTarget.setAttribute("aria-pressed", page.held);
    draw();
    status();
  };
  at("forget").onclick = () => signOut("");
  at("skip").onclick = event => { event.preventDefault(); at("main").focus(); };
}

theme(localStorage.getItem("vorrang-theme") ?? "");
bar();
onChange(() => look());
addEventListener("hashchange", go);
addEventListener("resize", draw);
// Not while a look is under way: a later one makes an earlier one void, and on a slow connection none would ever be shown.
setInterval(() => { if (!page.held && !document.hidden && page.looks === 0) look(); }, LOOK_EVERY);
setInterval(status, 1000);
go();
start();
