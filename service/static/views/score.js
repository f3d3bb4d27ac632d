// Score rows of a file: which are odd, and why.

import { call, get } from "../page/api.js";
import { byId, clearComplaints } from "../page/dom.js";
import { readNpy } from "../page/npy.js";
import { featureNames, isPicture } from "../page/shapes.js";
import { bind } from "../page/state.js";
import { BY_HAND, showByHand, watchByHand } from "./score/by_hand.js";
import { ask, factsOf, isPictureFile } from "./score/files.js";
import { scoreHistogram } from "./score/histogram.js";
import { checkBytes, FileProblem, listed } from "./score/limits.js";
import { save } from "./score/save.js";
import {
  AGAIN, emptyScores, explainRows, qValues, scorePictures, scoreRows,
} from "./score/scoring.js";
import { scoreTable } from "./score/table.js";
import { showFeatures, showHeatMap, showReason, toImage } from "./score/why.js";

// Of the rows; of rows like those of the calibration about 2 in 1,000 lie below its histogram.
const MANY_BELOW = 0.05;

const HTML = `
  <h2>Which rows are odd, and why</h2>
  <div id="score-drop" class="drop">
    <label>Drop a file here, or choose one
      <input type="file" id="score-file" multiple
        accept=".csv,.tsv,.txt,.parquet,.npy,.png,.jpg,.jpeg,image/png,image/jpeg"></label>
    <p class="quiet" id="score-takes"></p>
    <p><button type="button" id="score-try">No file at hand? Draw 200 rows from the model</button></p>
  </div>
  <p id="score-notes" class="quiet" role="status"></p>
  <p id="score-progress" hidden>
    <progress id="score-bar" max="1" aria-label="rows that are scored"></progress>
    <span id="score-done"></span>
    <button type="button" id="score-cancel">Cancel</button>
  </p>
  <div id="score-result" hidden>
    <p id="score-told" role="status"></p>
    <form id="score-decide">
      <label>flag by <select id="score-by" name="by">
        <option value="alpha">false alarms a row (alpha)</option>
        <option value="fdr">false alarms of the flagged (fdr)</option>
      </select></label>
      <label>rate <input type="range" id="score-slider" step="0.01" aria-describedby="score-bound">
        <input type="number" id="score-rate" name="alpha" min="0" max="1" step="any" value="0.01"
          aria-label="rate"></label>
    </form>
    <p id="score-bound" class="quiet"></p>
    <div id="score-plot" role="img"></div>
    <p id="score-legend" class="quiet"></p>
    <div class="score-parts">
      <section><h3>The rows <small class="quiet">(row 0 is the first)</small></h3>
        <div id="score-rows"></div>
        <button type="button" id="score-save">Download as CSV</button>
        <span id="score-saved" role="status"></span></section>
      <section id="score-why" aria-live="polite"></section>
    </div>
  </div>
  ${BY_HAND}`;

const TRIED_ROWS = 200;
const MOST_PICTURES = 500;

let app = null;
let histogram = null;
let table = null;
let work = null; // AbortController of what is read and scored now
let detail = null; // AbortController of what is explained now
let batch = null; // the rows that are looked at: see `adopt`
let calibration = null; // what GET /models/NAME/calibration says at the rate
let asked = 0; // how often that was asked for: an older answer is not taken
let seen = null; // of which model, class and context the batch was scored

const lookedAt = () => JSON.stringify([app.model.name, app.model.version, app.fields()]);
const names = () => featureNames(app.model);

function takes({ model }) {
  if (isPicture(model)) {
    const [channels, height, width] = model.event_shape;
    return `Pictures (PNG or JPEG, several at once) of ${width} x ${height} pixels, `
      + `${channels === 3 ? "in colour" : "grey"}, scored as they are: none is cropped or resized; or .npy of shape (rows, ${model.event_shape.join(", ")}).`;
  }
  if (model.event_shape.length > 1) return `.npy of shape (rows, ${model.event_shape.join(", ")}).`;
  return model.feature_names
    ? `CSV or Parquet with the columns ${listed(model.feature_names)}, in any order; others may be `
      + "there too. Or .npy in this order."
    : `CSV, Parquet or .npy of ${model.features} columns of numbers.`;
}

// ---- reading

async function readPictures(files) {
  const { model } = app;
  if (!isPicture(model)) {
    throw new FileProblem(`${model.name} takes rows of ${listed(names())}, and no pictures`);
  }
  if (files.length > MOST_PICTURES) {
    throw new FileProblem(`expected ${MOST_PICTURES} pictures at most, got ${files.length}`);
  }
  const header = ["file"];
  const rows = files.map(file => [file.name]);
  await ask("keep", { header, rows });
  return { files, count: files.length, names: files.map(file => file.name), header, faults: [],
    notes: [], shown: [], skipped: null, others: [] };
}

async function readTable(files, signal) {
  const [file, another] = files;
  const { model } = app;
  if (another) throw new FileProblem("expected one table, or several pictures");
  if (model.event_shape.length > 1 && !/\.npy$/i.test(file.name)) {
    throw new FileProblem(`${file.name}: ${model.name} takes ${takes(app)}`);
  }
  const read = await ask("read", { file, model: factsOf(model) }, signal);
  const { others } = read;
  if (others.length) read.notes.push(`not used, and kept in the download: ${listed(others)}`);
  return { ...read, rows: { data: read.data, shape: [read.count, ...model.event_shape] } };
}

async function readFiles(files, signal) {
  for (const file of files) checkBytes(file, app.model);
  return files.every(isPictureFile) ? readPictures(files) : readTable(files, signal);
}

async function drawRows(signal) {
  const { model } = app;
  const fields = { ...app.fields(), num_samples: TRIED_ROWS };
  const answer = await call("sample", fields, { accept: "application/x-npy", signal });
  const drawn = readNpy(await answer.arrayBuffer());
  const header = model.features <= 64 ? names() : [];
  const data = Float64Array.from(drawn.data);
  await ask("keep", { data, header, width: model.features });
  return { rows: { data, shape: drawn.shape }, count: drawn.shape[0], header, faults: [], shown: [],
    others: [], skipped: null, notes: [`${TRIED_ROWS} rows drawn from ${model.name}`] };
}

// ---- scoring

// Say beside the field of rows that have no numbers what is wrong with them.
function tellFaults() {
  const { scores: { reasons }, skipped, count } = batch;
  if (reasons.size === 0) return;
  const [[row, reason]] = reasons;
  const place = batch.names?.[row]
    ?? (skipped === null ? `row ${row}` : `row ${row} (line ${row + skipped + 1})`);
  const others = reasons.size > 1 ? `; ${reasons.size - 1} more` : "";
  app.fail(new FileProblem(
    `${reasons.size} of ${count} have no score: ${place}: ${reason}${others}`), byId("score-file"));
}

// Look at rows from now on: {rows or files, count, header, faults, notes, shown, skipped}.
async function adopt(read, signal) {
  batch = { ...read, scores: emptyScores(read.count) };
  seen = lookedAt();
  byId("score-notes").textContent = batch.notes.join("; ");
  for (const { row, reason } of batch.faults) batch.scores.reasons.set(row, reason);
  raiseRate();
  await askCalibration();
  byId("score-progress").hidden = false;
  byId("score-result").hidden = false;
  for (const id of ["score-rows", "score-why"]) byId(id).classList.add("stale");
  const onPiece = done => {
    byId("score-bar").value = done / batch.count;
    byId("score-done").textContent = `${done.toLocaleString("en")} of `
      + `${batch.count.toLocaleString("en")} rows`;
    plot();
  };
  const score = batch.files ? scorePictures : scoreRows;
  await score(app, batch.files ?? batch.rows, batch.scores,
    { more: batch.more, signal, onPiece });
  await showTable();
}

// Read and score, in the place of what was being read or scored.
async function run(read) {
  work?.abort();
  detail?.abort();
  const mine = work = new AbortController();
  clearComplaints(byId("score-drop"));
  for (const id of ["score-result", "score-progress"]) byId(id).hidden = true;
  byId("score-notes").textContent = "Reading …";
  try {
    await adopt(await read(mine.signal), mine.signal);
  } catch (error) {
    if (work !== mine) return;
    byId("score-result").hidden = true;
    byId("score-notes").textContent = error.name === "AbortError" ? "Given up." : "";
    if (batch?.scores.done !== batch?.count) batch = null;
    app.fail(error, byId("score-file"));
  } finally {
    if (work === mine) {
      work = null;
      byId("score-progress").hidden = true;
    }
  }
}

// ---- what decides

const rate = () => Number(byId("score-rate").value);
const isFdr = () => byId("score-by").value === "fdr";

// A rate that so few calibration rows can promise, where that of before is lower.
function raiseRate() {
  const { calibration: facts, num_classes } = app.model;
  if (!facts) return;
  const own = num_classes === null ? undefined : facts.classes?.[app.fields().context];
  const least = (own ?? facts).p_floor;
  if (rate() >= least) return;
  byId("score-rate").value = Math.ceil(least * 1e4) / 1e4;
  byId("score-rate").dispatchEvent(new Event("input"));
}

// Whether it was answered, and no later one was asked meanwhile.
async function askCalibration() {
  const { model } = app;
  byId("score-decide").hidden = !model.calibration;
  const mine = ++asked;
  if (!model.calibration) {
    calibration = null;
    return true;
  }
  const label = model.num_classes === null ? "" : `&class=${app.fields().context}`;
  const path = `models/${encodeURIComponent(model.name)}/calibration`;
  const query = isFdr() ? `?${label.slice(1)}` : `?alpha=${rate()}${label}`;
  const found = await get(path + query);
  if (mine !== asked) return false;
  calibration = found;
  const slider = byId("score-slider");
  slider.min = Math.log10(found.p_floor).toFixed(2);
  slider.max = Math.log10(0.5).toFixed(2);
  // Rates are rounded: under the keys the slider would never leave its place.
  if (document.activeElement !== slider) slider.value = Math.log10(rate());
  return true;
}

function decide() {
  const { scores } = batch;
  const limit = rate();
  if (!app.model.calibration) batch.isFlagged = () => false;
  else if (isFdr()) {
    const q = batch.q = qValues(scores.p_value, batch.byP);
    batch.isFlagged = row => q[row] <= limit;
  } else batch.isFlagged = row => scores.p_value[row] <= limit;
}

// Another rate, or another meaning of it: nothing is scored again.
async function changeRate() {
  clearComplaints(byId("score-decide"));
  try {
    if (!await askCalibration() || !batch?.byP) return;
  } catch (error) {
    return app.fail(error, byId("score-rate"));
  }
  decide();
  plot();
  tell();
  table.redraw();
  explainPage();
}

const percent = share => `${Number((100 * share).toPrecision(3))} %`;

const classOf = () => app.model.num_classes === null ? ""
  : `Scored as class ${byId("label").selectedOptions[0].textContent}; choose another above. `;

function promise() {
  if (!app.model.calibration) {
    return `${app.model.name} is not calibrated: scores are -log_prob, and no row is flagged. `
      + `For p-values: pushforward calibrate ${app.model.name} --data HELD-OUT, with rows that it `
      + "never saw.";
  }
  if (isFdr()) return `Of the flagged rows about ${percent(rate())} are false alarms.`;
  return `Of rows like the ${calibration.rows.toLocaleString("en")} calibration rows `
    + `(${calibration.dataset}) ${percent(rate())} are flagged falsely, and with 95 % confidence `
    + `fewer than ${percent(calibration.fpr_upper95)}.`;
}

function tell() {
  const { count, scores } = batch;
  let flagged = 0;
  for (let row = 0; row < count; row++) flagged += batch.isFlagged(row);
  const failed = scores.reasons.size;
  byId("score-told").textContent = `${app.model.calibration
    ? `${flagged.toLocaleString("en")} of ${count.toLocaleString("en")} rows flagged `
      + `(${percent(flagged / count)})` : `${count.toLocaleString("en")} rows scored`}`
    + `${failed ? `; ${failed} without a number` : ""}`;
  byId("score-bound").textContent = classOf() + promise();
}

function plot() {
  const { scores } = batch;
  const values = scores.score;
  const flagged = [];
  for (let row = 0; batch.isFlagged && row < values.length; row++) {
    if (batch.isFlagged(row) && Number.isFinite(values[row])) flagged.push(values[row]);
  }
  const limit = !app.model.calibration ? null
    : isFdr() ? (flagged.length ? Math.min(...flagged.slice(0, 10000)) : null) : calibration.threshold;
  const { statistic } = calibration ?? { statistic: "neg_log_prob" };
  const what = statistic === "neg_log_prob" ? "score: -log p, in nats" : `score: ${statistic}`;
  if (!values.some(Number.isFinite)) return byId("score-plot").replaceChildren();
  const beyond = histogram.draw({ histogram: calibration?.histogram ?? null, values, flagged,
    threshold: limit, label: what });
  byId("score-plot").setAttribute("aria-label", `Histogram of ${scores.done} scores`
    + `${calibration ? ` over ${calibration.rows} of calibration` : ""}`
    + `${limit === null ? "" : `; threshold ${limit.toPrecision(4)}`}`);
  const lowest = calibration?.histogram?.edges[0] ?? -Infinity;
  const below = values.filter(value => value < lowest).length;
  byId("score-legend").textContent = [
    "Blue: your rows.", ...calibration ? ["Grey: the calibration rows."] : [],
    ...limit === null ? [] : [`Orange: the threshold, ${Number(limit.toPrecision(4))}; rows to the right `
      + "of it are flagged, each with a red mark below."],
    ...beyond ? [`The last bar holds all that score higher still: ${beyond}.`] : [],
    ...below > MANY_BELOW * values.length ? [`Lower than nearly every calibration row: ${below}; the `
      + "model finds these likelier than its data, as it often does simple pictures, and never flags "
      + "them."] : [],
    "Higher is odder.",
  ].join(" ");
}

// ---- rows

async function showTable() {
  const { scores, count } = batch;
  const hasP = app.model.calibration !== null;
  batch.isFlagged = () => false;
  const content = { count, scores, hasP, extra: batch.shown, names: batch.names ?? null,
    isFlagged: row => batch.isFlagged(row) };
  batch.byP = hasP ? await ask("order", { first: scores.p_value, then: null, descends: false })
    : null;
  if (!hasP) batch.byP = [];
  decide();
  const order = await table.show(content);
  for (const id of ["score-rows", "score-why"]) byId(id).classList.remove("stale");
  plot();
  tell();
  tellFaults();
  table.pick(order[0]);
}

const canExplain = () => !batch.files && app.model.event_shape.length === 1 && app.model.calibration;

// Explain the flagged rows of the page that is shown, all at once.
async function explainPage() {
  if (!canExplain()) return;
  const current = batch;
  const wanted = table.rowsOfPage()
    .filter(row => batch.isFlagged(row) && !batch.scores.reasons.has(row) && !table.told(row));
  if (wanted.length === 0) return;
  try {
    const told = await explainRows(app, batch.rows, wanted, work?.signal);
    if (batch === current) wanted.forEach((row, index) => told[index] && table.tell(row, told[index]));
  } catch (error) {
    app.fail(error, byId("score-save"));
  }
}

const titleOf = row => batch.names ? `Row ${row}: ${batch.names[row]}`
  : `Why row ${row}${batch.skipped === null ? "" : ` (line ${row + batch.skipped + 1})`}`;

async function pictureOf(row) {
  const { files, rows } = batch;
  if (files) {
    const type = /png$/i.test(files[row].type || files[row].name) ? "image/png" : "image/jpeg";
    return { picture: await createImageBitmap(files[row]),
      asked: { body: { bytes: files[row], type } } };
  }
  const { features, event_shape: shape, num_levels: levels } = app.model;
  const data = rows.data.slice(row * features, (row + 1) * features);
  return { picture: await toImage({ data, shape, levels: levels ?? 256 }),
    asked: { rows: { data, shape: [1, ...shape] } } };
}

async function choose(row) {
  detail?.abort();
  const mine = detail = new AbortController();
  const root = byId("score-why");
  const title = titleOf(row);
  const reason = batch.scores.reasons.get(row);
  if (reason) return showReason(root, title, reason);
  try {
    if (isPicture(app.model)) {
      showReason(root, title, "Computing the heat map: the first one takes a few seconds.");
      const options = { title, ...await pictureOf(row), signal: mine.signal };
      return await showHeatMap(root, app, options);
    }
    if (!canExplain()) {
      return showReason(root, title, app.model.calibration ? "Rows of this shape are not explained."
        : "What is expected of a feature is known from a calibration, which this model lacks.");
    }
    const told = table.told(row) ?? (await explainRows(app, batch.rows, [row], mine.signal))[0];
    if (detail !== mine) return;
    table.tell(row, told);
    showFeatures(root, title, told);
  } catch (error) {
    if (error.name !== "AbortError") showReason(root, title, error.message);
  }
}

// ---- the view

function watchDrop() {
  const drop = byId("score-drop");
  const file = byId("score-file");
  for (const kind of ["dragenter", "dragover"]) {
    drop.addEventListener(kind, event => {
      event.preventDefault();
      drop.classList.add("over");
    });
  }
  for (const kind of ["dragleave", "drop"]) {
    drop.addEventListener(kind, () => drop.classList.remove("over"));
  }
  drop.addEventListener("drop", event => {
    event.preventDefault();
    const files = [...event.dataTransfer.files];
    if (files.length) run(signal => readFiles(files, signal));
  });
  file.addEventListener("change", () => {
    const files = [...file.files];
    file.value = ""; // the same file again is another change
    if (files.length) run(signal => readFiles(files, signal));
  });
}

function watchControls() {
  byId("score-try").addEventListener("click", () => run(drawRows));
  byId("score-cancel").addEventListener("click", () => work?.abort(new DOMException("", "AbortError")));
  byId("score-decide").addEventListener("submit", event => event.preventDefault());
  for (const id of ["score-by", "score-rate"]) {
    bind(byId(id));
    byId(id).addEventListener("change", changeRate);
  }
  byId("score-slider").addEventListener("input", () => {
    const least = calibration?.p_floor ?? 0;
    const value = Math.max(least, Number((10 ** Number(byId("score-slider").value)).toPrecision(2)));
    byId("score-rate").value = value;
    byId("score-rate").dispatchEvent(new Event("change"));
  });
  byId("score-save").addEventListener("click", () =>
    save(app, { batch, table, rate: rate(), isFdr: isFdr(), canExplain: canExplain() })
      .catch(error => app.fail(error, byId("score-save"))));
}

function forget() {
  work?.abort();
  detail?.abort();
  batch = null;
  for (const id of ["score-result", "score-progress"]) byId(id).hidden = true;
  byId("score-notes").textContent = "";
  clearComplaints(byId("view-score"));
}

async function show() {
  byId("score-takes").textContent = takes(app);
  const now = lookedAt();
  if (now === seen && batch) return;
  const rescored = batch && seen && JSON.parse(seen)[0] === app.model.name && batch;
  if (!rescored) {
    forget();
    showByHand(app);
    seen = now;
    return;
  }
  run(() => Promise.resolve({ ...rescored, more: AGAIN })); // another class, another answer
}

export const score = {
  id: "score",
  title: "Score",
  unfit: () => null,
  mount(root, given) {
    app = given;
    root.innerHTML = HTML;
    histogram = scoreHistogram(byId("score-plot"));
    table = scoreTable(byId("score-rows"), { onPage: explainPage, onChoose: choose });
    watchDrop();
    watchControls();
    watchByHand(app);
    return { show };
  },
};
