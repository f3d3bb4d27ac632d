// What the server does now, from its own metrics.

import { getText, Problem } from "../page/api.js";
import { byId } from "../page/dom.js";
import { parseMetrics } from "../page/metrics.js";
import { short } from "../page/numbers.js";
import { bind } from "../page/state.js";
import { fillTable } from "../page/table.js";
import { onThemeChange } from "../page/theme.js";
import { makeCharts } from "./live/charts.js";
import {
  batchRows, between, DRIFT_LIMIT, errors, isAlarmed, latency, summarise, together,
} from "./live/summary.js";
import { meaning } from "./live/words.js";

const POLL_MS = 2000;
const SEEN_SECONDS = 300;
// What is called now is what was counted in so many seconds; of one poll alone it would jump.
const NOW_SECONDS = 10;

const HTML = `
  <h2>What the server does now</h2>
  <p id="live-load" role="status"></p>
  <p id="live-drift" role="status"></p>
  <label>lines of <select id="live-of" name="of">
    <option value="">all models</option>
    <option value="model">this model</option>
  </select></label>
  <button type="button" id="live-pause" aria-pressed="false">Pause</button>
  <span id="live-seen" class="quiet"></span>
  <div id="live-charts"></div>
  <p class="quiet">The log martingale is the evidence, in nats, that scored rows are unlike those of the
    calibration. It begins anew with each window of rows; above ${DRIFT_LIMIT.toFixed(1)}, odds of 100 to
    1, it is an alarm.</p>
  <h3>Each model</h3>
  <table id="live-models"></table>
  <p class="quiet">/s is of the last ${NOW_SECONDS} seconds; rows, times, batches and errors are of all
    that was seen, of the last five minutes at most. Half of the requests were answered within p50,
    99 of 100 within p99, from arrival to the last byte; they are read off a histogram, so they are
    rough. What this page asks to draw this view is not counted.</p>
  <h3>Errors</h3>
  <p id="live-no-errors">No request has failed since the server started.</p>
  <table id="live-errors" hidden></table>`;

const CHARTS = [
  { id: "rate", title: "Rows computed a second", unit: "a second", least: 1,
    lines: [["rows/s", "accent"]] },
  { id: "latency", title: "Time of a request, in ms", unit: "ms", least: 1,
    lines: [["p50", "accent"], ["p99", "sample"]] },
  { id: "queue", title: "Rows that wait, and rows a batch", unit: "rows", least: 1,
    lines: [["waiting", "sample"], ["rows a batch", "accent"]] },
  { id: "drift", title: "Drift: log martingale of scored rows, and its limit", unit: "nats", least: 5,
    lines: [["log martingale", "accent"], ["limit", "error"]] },
];
const HEAD = ["model", "rows/s", "requests/s", "rows", "p50, ms", "p99, ms", "waiting",
  "rows a batch", "errors", "drift"];

const history = []; // {seconds, models}: what was seen, oldest first
let polling = null; // an AbortController, while the view is up
let timer = null;
let paused = false;
let charts = null;

const now = () => Date.now() / 1000;
const names = models => [...models.keys()].filter(name => name !== "");
const chosenOf = (models, app) => byId("live-of").value
  ? models.get(app.model.name) ?? together([]) : together(models.values());

// From what second to what second lines are drawn: a minute at least.
const reach = () => [Math.min(history[0]?.seconds ?? Infinity, now() - 60), now()];

// The scrape that the one at an index is compared with: the first of the last few seconds.
function earlier(index, seconds) {
  const oldest = history[index].seconds - seconds - 1;
  return history.findIndex((scrape, at) => at < index && scrape.seconds >= oldest);
}

// What was counted of the chosen models in the seconds before a scrape; null of the first one.
function changeAt(index, app) {
  const before = earlier(index, NOW_SECONDS);
  if (before < 0) return null;
  const [first, last] = [history[before], history[index]];
  return {
    seconds: last.seconds - first.seconds,
    facts: between(chosenOf(first.models, app), chosenOf(last.models, app)),
  };
}

function drawCharts(app) {
  const times = history.map(({ seconds }) => seconds);
  const changes = history.map((_, index) => changeAt(index, app));
  const of = read => changes.map(change => change && read(change.facts, change.seconds));
  const seen = history.map(({ models }) => chosenOf(models, app));
  charts.draw({
    rate: [times, of((facts, seconds) => facts.rows / seconds)],
    latency: [times, of(facts => latency(facts, 0.5)), of(facts => latency(facts, 0.99))],
    queue: [times, seen.map(({ waiting }) => waiting), of(batchRows)],
    drift: [times, seen.map(({ drift }) => drift), times.map(() => DRIFT_LIMIT)],
  });
}

const drift = facts => facts.tested === 0 || facts.drift === null ? "no row scored"
  : `${short(facts.drift)}${facts.drift > DRIFT_LIMIT ? ", alarm"
    : isAlarmed(facts) ? ", alarm before" : ""}`;

function lineOf(name, select) {
  const [first, last] = [history[0], history.at(-1)];
  const recent = history[earlier(history.length - 1, NOW_SECONDS)]; // none after a pause
  const [before, after] = [select(first.models), select(last.models)];
  const all = between(before, after);
  const latest = recent && between(select(recent.models), after);
  const rate = name => recent ? latest[name] / (last.seconds - recent.seconds) : null;
  return [name, short(rate("rows")), short(rate("requests")), short(all.rows),
    short(latency(all, 0.5)), short(latency(all, 0.99)), short(after.waiting),
    short(batchRows(all)), short(errors(all)), drift(after)];
}

function drawModels(models) {
  const rows = names(models).sort().map(name =>
    lineOf(name, scrape => scrape.get(name) ?? together([])));
  fillTable(byId("live-models"), HEAD,
    [lineOf("all", scrape => together(scrape.values())), ...rows]);
}

function drawErrors(models) {
  const since = together(models.values()).codes;
  const seen = between(together(history[0].models.values()), together(models.values())).codes;
  const rows = [...since].filter(([code, total]) => Number(code) >= 400 && total > 0).sort()
    .map(([code, total]) => [code, meaning(code), short(seen.get(code)), short(total)]);
  byId("live-no-errors").hidden = rows.length > 0;
  byId("live-errors").hidden = rows.length === 0;
  fillTable(byId("live-errors"), ["code", "what it says", "seen here", "since the start"], rows);
}

// A status is spoken when it changes, so it is written only then.
function say(id, text, isAlarm) {
  if (byId(id).textContent !== text) byId(id).textContent = text;
  byId(id).classList.toggle("error", isAlarm);
}

function sayLoad(models) {
  const all = together(models.values());
  const { refused } = between(together(history[0].models.values()), all);
  const behind = [...models.values()].some(({ waiting, fullBatch }) => waiting > 2 * fullBatch);
  say("live-load", refused ? `Overloaded: ${short(refused)} requests were refused while this view `
    + "was up. Their clients should try again later; more workers or larger batches may help."
    : behind ? "Busy: more rows wait than two batches take. No request was refused."
      : "Not overloaded: hardly a row waits, and no request was refused.", refused > 0 || behind);
}

function sayDrift(models) {
  const alarmed = names(models).filter(name => isAlarmed(models.get(name))).map(name =>
    models.get(name).drift > DRIFT_LIMIT ? name
      : `${name} (alarm in this window of rows or the one before; no sign in the latest)`);
  const { tested, crossings } = together(models.values());
  const before = crossings ? ` Since the start ${short(crossings)} `
    + `${crossings === 1 ? "window" : "windows"} crossed the limit; one in a hundred is chance.` : "";
  say("live-drift", (alarmed.length ? `Drift: rows that were scored are no longer like those of the `
    + `calibration: ${alarmed.join(", ")}.`
    : tested ? `No sign of drift in this window of rows; ${short(tested)} were scored in all.`
      : "Drift is not known yet: no row was scored by a calibrated model.") + before,
  alarmed.length > 0);
}

function drawAll(app) {
  const { models } = history.at(-1);
  const seconds = Math.round(history.at(-1).seconds - history[0].seconds);
  byId("live-seen").textContent = `${paused ? "paused; " : ""}seen for ${seconds} seconds`;
  drawModels(models);
  drawErrors(models);
  sayLoad(models);
  sayDrift(models);
  drawCharts(app);
}

let asked = false; // the request that is shown: one of them is enough

async function poll(app, { signal }) {
  try {
    const models = summarise(parseMetrics(await getText("metrics", { signal, shown: !asked })));
    asked = true;
    if (signal.aborted) return;
    history.push({ seconds: now(), models });
    while (history[0].seconds < now() - SEEN_SECONDS) history.shift();
    drawAll(app);
  } catch (error) {
    if (signal.aborted) return;
    if (!(error instanceof Problem)) return app.fail(error, byId("live-of"));
    say("live-load", `${error.message}; it is asked again every ${POLL_MS / 1000} seconds`, true);
  }
  timer = setTimeout(() => poll(app, { signal }), POLL_MS);
}

function stop() {
  polling?.abort();
  clearTimeout(timer);
  polling = null;
}

// Ask only while somebody looks.
function start(app) {
  stop();
  if (paused || document.hidden || byId("view-live").hidden) return;
  polling = new AbortController();
  poll(app, polling);
}

function pause(app) {
  paused = !paused;
  byId("live-pause").setAttribute("aria-pressed", String(paused));
  if (history.length) drawAll(app);
  start(app);
}

function mount(root, app) {
  root.innerHTML = HTML;
  bind(byId("live-of"));
  charts = makeCharts(byId("live-charts"), CHARTS, reach);
  byId("live-of").addEventListener("change", () => history.length && drawAll(app));
  byId("live-pause").addEventListener("click", () => pause(app));
  document.addEventListener("visibilitychange", () => start(app));
  onThemeChange(charts.redo);
  let frame;
  addEventListener("resize", () => {
    cancelAnimationFrame(frame);
    frame = requestAnimationFrame(() => polling && charts.redo());
  });
  const show = () => {
    asked = false;
    start(app);
  };
  return { show, hide: stop };
}

export const live = { id: "live", title: "Live", unfit: () => null, mount };
