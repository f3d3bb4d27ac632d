// Whether a density can be trusted: rows there and back, what log p is made of, what was measured.

import { drawRows } from "../page/api.js";
import { byId, clearComplaints, element } from "../page/dom.js";
import { short } from "../page/numbers.js";
import { featureNames, isPicture, noLatents } from "../page/shapes.js";
import { bind, read } from "../page/state.js";
import { fillTable } from "../page/table.js";
import { onThemeChange } from "../page/theme.js";
import * as card from "./trust/card.js";
import { drawCost, watchCost } from "./trust/cost.js";
import { drawLedger } from "./trust/ledger.js";
import { drawErrors, drawPictures } from "./trust/pictures.js";
import { readRows, roundTrip, zeroRows } from "./trust/roundtrip.js";

const HTML = `
  <h2>Can this density be trusted?</h2>
  <ul id="verdicts-of-trust"></ul>

  <h2>There and back</h2>
  <p class="quiet">x is encoded into z, and z decoded into x again. What comes back differs by rounding
    alone: a flow loses nothing.</p>
  <form id="trip">
    <label>rows <select id="trip-of" name="trip">
      <option value="drawn">drawn from the model</option>
      <option value="own">of my own</option>
      <option value="zeros">a row of zeros</option>
    </select></label>
    <label id="trip-count-field">how many
      <input type="number" id="trip-count" name="trip-count" min="1" max="4096" required></label>
    <label id="trip-seed-field">seed
      <input type="number" id="trip-seed" name="trip-seed" min="0" value="0" required></label>
    <label id="trip-rows-field" hidden>rows as JSON
      <textarea id="trip-rows" spellcheck="false"></textarea></label>
    <button>Encode and decode</button>
  </form>
  <p id="trip-verdict" class="verdict" role="status"></p>
  <p id="trip-result" role="status"></p>
  <div class="side-by-side">
    <figure id="trip-histogram-figure" class="chart" hidden>
      <figcaption>How many numbers came back with which error</figcaption>
      <div id="trip-histogram" role="img"></div>
    </figure>
    <div id="trip-pictures" hidden></div>
    <div id="trip-worst-part"><h3>The row that lost most</h3><table id="trip-worst"></table></div>
  </div>

  <h2>The likelihood ledger</h2>
  <p id="ledger-words" class="quiet"></p>
  <table id="ledger"></table>

  <h2>Accuracy</h2>
  <p class="quiet">Golden rows were saved with the model, with their answers; held out are rows that it
    was not trained on; drawn are its own. They are compared with float64, the same model computed with
    sixteen digits; a certificate says so of the graphs that serve.</p>
  <table id="trust-accuracy"></table>
  <h3>Golden replay</h3>
  <p id="trust-replay"></p>
  <h3>Certificate</h3>
  <p id="trust-no-certificate">This model has no certificate: it is not served by graphs that were
    exported. <code>pushforward export FOLDER --in-place</code> makes them, and tries them against
    float64.</p>
  <table id="trust-certificate"></table>

  <h2>Calibration of anomaly scores</h2>
  <p id="trust-no-calibration">This model is not calibrated: its scores are -log p, without p-values.
    <code>pushforward calibrate FOLDER --data ROWS.csv</code> calibrates it on rows that it was not
    trained on.</p>
  <div id="trust-calibration">
    <table id="trust-calibration-facts"></table>
    <h3>Thresholds</h3>
    <table id="trust-thresholds"></table>
    <h3>What it tells from rows like the data</h3>
    <p class="quiet">AUROC: 1 where it always tells them apart, 0.5 where it is chance; in brackets
      where the truth lies with 95 % confidence.</p>
    <table id="trust-probes"></table>
    <p id="trust-warnings"></p>
  </div>

  <h2>Cost</h2>
  <p><button type="button" id="cost-measure">Measure</button>
    <button type="button" id="cost-stop" hidden>Stop</button>
    <span id="cost-says" role="status"></span></p>
  <table id="cost"></table>
  <p class="quiet">Times are medians of up to nine calls as this page sees them, network and all.</p>

  <h2>Where it comes from</h2>
  <table id="trust-provenance"></table>`;

let asked = null; // an AbortController, of the round trip
let stopMeasuring = null;
let trip = null; // what the last round trip gave

// Few enough for an answer within a glance, by what a row costs.
const defaultCount = model => model.cost?.decode === "evaluations" || model.cost === undefined ? 16
  : isPicture(model) ? 16 : 256;
const MAX_SHOWN_FEATURES = 64; // of a row that is shown as text

// As many digits as tell two numbers of a type apart.
const digits = (number, model) => Number(number.toPrecision(model.dtype === "float64" ? 17 : 9));

// A row to begin with: what was drawn last, or zeros.
function suggestRow(model) {
  if (byId("trip-rows").value || model.features > MAX_SHOWN_FEATURES) return;
  const { data } = trip?.x ?? zeroRows(model);
  byId("trip-rows").value =
    JSON.stringify(Array.from(data.subarray(0, model.features), value => digits(value, model)));
}

function showFields(model) {
  const of = byId("trip-of").value;
  if (of === "own") suggestRow(model);
  byId("trip-rows-field").hidden = of !== "own";
  byId("trip-count-field").hidden = byId("trip-seed-field").hidden = of !== "drawn";
}

const CLASSES = new Map([[true, "yes"], [false, "no"], [null, "unknown"], ["weak", "weak"]]);
const MAY_LOSE = 1e-3; // times max(1, |x|): what certificates allow, unless one says otherwise

const unit = model => model.num_levels ? "levels" : "in the units of x";

function rowsAsked(app, signal) {
  const { model } = app;
  const of = byId("trip-of").value;
  if (of === "own") return readRows(byId("trip-rows").value, model);
  if (of === "zeros") return zeroRows(model);
  const [num_samples, seed] = ["trip-count", "trip-seed"].map(id => Number(byId(id).value));
  return drawRows({ ...app.fields(), num_samples, seed }, { signal });
}

// "row 3, x2": where in the rows a number is.
function place(index, model) {
  const feature = index % model.features;
  const [, height, width] = model.event_shape;
  return `row ${Math.floor(index / model.features)}, ${isPicture(model)
    ? `line ${Math.floor(feature / width) % height}, column ${feature % width}`
    : featureNames(model)[feature]}`;
}

function sayTrip(model) {
  const [count] = trip.x.shape;
  const lost = trip.lost ? ` Left out as without numbers: ${trip.lost}.` : "";
  const { round_trip_max_abs_error: stated, certificate } = model.accuracy;
  const golden = stated === undefined ? ""
    : ` The largest of its golden rows, which are few, was ${short(stated)}.`;
  const may = certificate?.tolerance?.x ?? MAY_LOSE;
  const above = trip.errors.filter((error, index) =>
    error > may * Math.max(1, Math.abs(trip.x.data[index]))).length;
  const allowed = `${short(may)} × max(1, |x|), what a certificate allows`;
  byId("trip-verdict").textContent = above ? `${short(above)} of ${short(trip.errors.length)} `
    + `numbers lost more than ${allowed}` : `No number lost more than ${allowed}`;
  byId("trip-verdict").className = above ? "verdict no" : "verdict yes";
  byId("trip-result").textContent = `${short(count)} ${count === 1 ? "row" : "rows"} of `
    + `${short(model.features)} numbers: largest error ${short(trip.largest)} ${unit(model)} (${place(trip.worst, model)}), median `
    + `${short(trip.median)}; ${short(100 * trip.exact)} % came back with the same bits.${golden}${lost}`;
}

// The numbers of the row with the largest error, those that lost most first.
function drawWorst(model) {
  const first = Math.floor(trip.worst / model.features) * model.features;
  const order = Array.from({ length: model.features }, (_, index) => first + index)
    .sort((a, b) => trip.errors[b] - trip.errors[a]).slice(0, 10);
  const names = featureNames(model);
  byId("trip-worst-part").hidden = isPicture(model);
  fillTable(byId("trip-worst"), ["feature", "x", "decoded", "error"], order.map(index =>
    [names[index - first], ...[trip.x, trip.back].map(({ data }) => String(digits(data[index], model))),
      short(trip.errors[index])]));
}

async function makeTrip(app) {
  asked?.abort();
  const { signal } = asked = new AbortController();
  const rows = await rowsAsked(app, signal);
  trip = await roundTrip(app.fields(), rows, { signal });
  sayTrip(app.model);
  drawWorst(app.model);
  drawPictures(byId("trip-pictures"), trip, app.model);
  drawErrors(trip, unit(app.model));
  await drawLedger(app, trip.x, signal);
}

const isComplete = () => byId("trip-of").value !== "own" || byId("trip-rows").value !== "";

const start = app => {
  clearComplaints(byId("view-trust"));
  return makeTrip(app).catch(error =>
    app.fail(error, byId(byId("trip-of").value === "own" ? "trip-rows" : "trip-of")));
};

function drawCard(model) {
  byId("verdicts-of-trust").replaceChildren(...card.verdicts(model).map(([is, text]) =>
    element("li", { textContent: text, className: CLASSES.get(is) })));
  fillTable(byId("trust-accuracy"), ["what", "promised", "measured", "on"], card.accuracyLines(model));
  byId("trust-replay").textContent = card.replayText(model);
  const certificate = card.certificateLines(model);
  byId("trust-no-certificate").hidden = certificate !== null;
  fillTable(byId("trust-certificate"), [], certificate ?? []);
  fillTable(byId("trust-provenance"), [], card.provenanceLines(model));
  byId("trust-calibration").hidden = !model.calibration;
  byId("trust-no-calibration").hidden = Boolean(model.calibration);
  if (!model.calibration) return;
  fillTable(byId("trust-calibration-facts"), [], card.calibrationLines(model));
  fillTable(byId("trust-thresholds"),
    ["false alarms a row", "flagged above", "with 95 % confidence at most"], card.thresholdLines(model));
  fillTable(byId("trust-probes"), ["rows", "score", "AUROC", "how many"], card.probeLines(model));
  byId("trust-warnings").textContent = model.calibration.warnings.join("; ");
}

function stop() {
  asked?.abort();
  stopMeasuring();
}

function show(app) {
  stop();
  trip = null;
  const { model } = app;
  byId("trip-count").value = read("trip-count", defaultCount(model));
  if (byId("trip-count").dataset.model !== model.name) {
    byId("trip-count").dataset.model = model.name;
    byId("trip-rows").value = "";
  }
  byId("cost-says").textContent = "";
  drawCard(model);
  drawCost(model);
  showFields(model);
  if (isComplete()) start(app);
}

function mount(root, app) {
  root.innerHTML = HTML;
  for (const id of ["trip-of", "trip-seed", "trip-count"]) bind(byId(id));
  byId("trip-of").addEventListener("change", () => {
    showFields(app.model);
    if (isComplete()) start(app);
  });
  byId("trip").addEventListener("submit", event => {
    event.preventDefault();
    start(app);
  });
  stopMeasuring = watchCost(app);
  const redraw = () => trip && !root.hidden && drawErrors(trip, unit(app.model));
  onThemeChange(redraw);
  addEventListener("resize", redraw);
  return { show: () => show(app), hide: stop };
}

export const trust = { id: "trust", title: "Trust", unfit: noLatents, mount };
