// Score rows of a file: which are odd, and why.

import { byId, clearComplaints } from "../page/dom.js";
import { Batch } from "./score/batch.js";
import { BY_HAND, showByHand, watchByHand } from "./score/by_hand.js";
import { explainPage, explainRow, leaveRow } from "./score/explain.js";
import { ask } from "./score/files.js";
import { scoreHistogram } from "./score/histogram.js";
import { askCalibration, isFdr, raiseRate, rate, watchRate } from "./score/rate.js";
import { drawRows, readFiles, takes } from "./score/reading.js";
import { save } from "./score/save.js";
import { AGAIN, scorePictures, scoreRows } from "./score/scoring.js";
import { scoreTable } from "./score/table.js";
import { faultsOf, plot, tell } from "./score/told.js";

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

let app = null;
let histogram = null;
let table = null;
let reading = null; // the batch that is read and scored now
let batch = null; // the one that is seen, once it is read
let shown = null; // the model that was looked at last

// ---- scoring

function showProgress({ count }, done) {
  byId("score-bar").value = done / count;
  byId("score-done").textContent = `${done.toLocaleString("en")} of ${count.toLocaleString("en")} rows`;
}

// Score rows that were read, and show them meanwhile; more: fields beside those of the batch.
async function adopt(next, more) {
  byId("score-notes").textContent = next.notes.join("; ");
  raiseRate(next);
  await askCalibration(next);
  batch = next;
  byId("score-progress").hidden = false;
  byId("score-result").hidden = false;
  byId("score-saved").textContent = "";
  for (const id of ["score-rows", "score-why"]) byId(id).classList.add("stale");
  const onPiece = done => {
    showProgress(next, done);
    plot(next, histogram);
  };
  const score = next.files ? scorePictures : scoreRows;
  await score({ ...next.fields, ...more }, next.files ?? next.rows, next.scores,
    { signal: next.signal, onPiece });
  await showTable(next);
}

function stop() {
  for (const one of [reading, batch]) one?.giveUp();
  leaveRow();
  byId("score-save").disabled = true; // until all are scored
  for (const id of ["score-result", "score-progress"]) byId(id).hidden = true;
}

// Read and score, in the place of what was being read or scored.
async function run(read, more = {}) {
  stop();
  clearComplaints(byId("score-drop"));
  byId("score-notes").textContent = "Reading …";
  let mine = reading = null;
  try {
    mine = reading = new Batch(app);
    mine.fill(await read(mine));
    mine.signal.throwIfAborted();
    await adopt(mine, more);
  } catch (error) {
    if (reading !== mine) return;
    stop();
    batch = null;
    byId("score-notes").textContent = error.name === "AbortError" ? "Given up." : "";
    app.fail(error, byId("score-file"));
  } finally {
    if (reading === mine) {
      reading = null;
      byId("score-progress").hidden = true;
    }
  }
}

async function showTable(next) {
  const { count, model, names, scores } = next;
  const hasP = model.calibration !== null;
  const byP = hasP ? await ask("order", { first: scores.p_value, then: null, descends: false }) : [];
  next.signal.throwIfAborted();
  next.byP = byP;
  next.decide(rate(), isFdr());
  const order = await table.show({ count, scores, hasP, extra: next.shown, names,
    isFlagged: row => next.isFlagged(row) });
  next.signal.throwIfAborted();
  for (const id of ["score-rows", "score-why"]) byId(id).classList.remove("stale");
  byId("score-save").disabled = false;
  plot(next, histogram);
  tell(next);
  const faults = faultsOf(next);
  if (faults) app.fail(faults, byId("score-file"));
  table.pick(order[0]);
}

// Another rate, or another meaning of it: nothing is scored again.
async function changeRate() {
  clearComplaints(byId("score-decide"));
  const current = reading ?? batch;
  if (!current) return;
  try {
    await askCalibration(current);
  } catch (error) {
    return app.fail(error, byId("score-rate"));
  }
  if (!current.byP) return; // decided once all are scored
  current.decide(rate(), isFdr());
  plot(current, histogram);
  tell(current);
  table.redraw();
  explainPage(app, current, table);
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
    if (files.length) run(next => readFiles(files, next));
  });
  file.addEventListener("change", () => {
    const files = [...file.files];
    file.value = ""; // the same file again is another change
    if (files.length) run(next => readFiles(files, next));
  });
}

function watchControls() {
  byId("score-try").addEventListener("click", () => run(drawRows));
  byId("score-cancel").addEventListener("click", () => reading?.giveUp());
  watchRate(changeRate, () => batch?.calibration?.p_floor ?? 0);
  byId("score-save").addEventListener("click", () =>
    save(batch, table).catch(error => app.fail(error, byId("score-save"))));
}

function forget() {
  stop();
  reading = batch = null;
  histogram.clear();
  byId("score-notes").textContent = "";
  clearComplaints(byId("view-score"));
}

async function show() {
  const { model } = app;
  byId("score-takes").textContent = takes(model);
  const current = reading ?? batch;
  if (current?.isOf(app)) return;
  if (current?.read && current.model.name === model.name) {
    run(() => Promise.resolve(current.read), AGAIN); // another class, another answer
    return;
  }
  if (current || shown !== model) {
    forget();
    showByHand(app);
  }
  shown = model;
}

export const score = {
  id: "score",
  title: "Score",
  unfit: () => null,
  mount(root, given) {
    app = given;
    root.innerHTML = HTML;
    histogram = scoreHistogram(byId("score-plot"));
    table = scoreTable(byId("score-rows"), {
      onPage: () => explainPage(app, batch, table),
      onChoose: row => explainRow(app, batch, table, row),
    });
    watchDrop();
    watchControls();
    watchByHand(app);
    return { show };
  },
};
