// Draw samples: how they move with the temperature, and how the flow makes them of noise.

import { drawRows } from "../page/api.js";
import { byId, check, clearComplaints, element } from "../page/dom.js";
import { hasPixels } from "../page/pictures.js";
import { featureNames, isPlane } from "../page/shapes.js";
import { bind, read, readOption, write } from "../page/state.js";
import { onThemeChange } from "../page/theme.js";
import { drawPictures } from "./samples/pictures.js";
import { saveCsv, saveNpy, savePng } from "./samples/save.js";
import { axesOf, drawPoints } from "./samples/scatter.js";
import { askStates, between, describe } from "./samples/states.js";

const HTML = `
  <h2>Draw samples</h2>
  <form id="draw">
    <label>how many <input type="number" id="count" min="1" required></label>
    <label>seed <input type="number" id="seed" name="seed" min="0" value="1" required></label>
    <button type="button" id="another">Another draw</button>
  </form>
  <div class="side-by-side">
    <div>
      <canvas id="picture" class="pixels" role="img" hidden></canvas>
      <canvas id="plot" role="img" hidden></canvas>
      <p id="drawn" role="status"></p>
      <p id="outside" class="quiet"></p>
    </div>
    <div>
      <h3><label for="temperature">Temperature</label></h3>
      <input type="range" id="temperature" name="temperature" min="0" max="1.5" step="0.01" value="1"
        aria-describedby="of-temperature">
      <output id="temperature-value" for="temperature"></output>
      <p id="of-temperature" class="quiet">A seed stands for one draw of noise; the temperature T
        stretches it, z ~ N(0, T&sup2; I), before the flow makes samples of it. Below 1 they keep to
        what is most usual, at 0 all are one; above 1 they get wilder. The price: at any T but 1 they
        are no draws from the density that was learned, and their log_prob is still the model's own,
        that of T = 1.</p>
      <h3><label for="progress">From noise to data</label></h3>
      <input type="range" id="progress" min="0" max="1" step="0.005" value="1"
        aria-describedby="state">
      <button type="button" id="samples-play" aria-pressed="false">Play</button>
      <label><input type="checkbox" id="backwards"> backwards</label>
      <p id="state" class="quiet"></p>
      <h3>Download what is seen</h3>
      <button type="button" id="save-png">PNG</button>
      <button type="button" id="save-csv">CSV</button>
      <button type="button" id="save-npy">npy</button>
    </div>
  </div>
  <div id="samples-features" hidden>
    <label>across <select id="across"></select></label>
    <label>up <select id="up"></select></label>
    <table id="samples-table" tabindex="0" aria-label="the first samples"></table>
  </div>`;

// A draw that a slider asks for is to be there in so many ms; the whole follows when it rests.
const SOON_MS = 60;
const REST_MS = 200;
const FIRST_ROWS = 200;
const AXES = { seed: 1, temperature: 1, num_samples: 400, return_log_prob: false };
const PLAY_MS = 4000;
const STILL_MS = 700; // a state, where motion is not wanted
const SHOWN_ROWS = 8;
const SHOWN_FEATURES = 12;
const AT_REST = "The data. Move to the left to see the noise that they were made of.";

// Beside which field it is said what is wrong with a field of the request.
const FIELDS = { "/seed": "seed", "/context": "context", "/trajectory": "progress" };

let app = null;
let controller = new AbortController();
let isBusy = false, isWanted = false; // a request is under way; another is to follow it
let isMoving = false, resting = 0; // a slider moves; the timer of when it rests
let msPerRow = null;
let seen = null; // {data, count}: the rows that are drawn
let states = null; // {key, ...}: what askStates gave for these fields
let axes = {}; // {key, rows}: rows that the axes are of
let playing = 0;
let looksAt = "";

const number = id => Number(byId(id).value);
const progress = () => number("progress");
const wanted = () => ({
  ...app.fields(),
  num_samples: number("count"),
  temperature: number("temperature"),
  seed: number("seed"),
});

async function ask(fields, options) {
  const { data, shape } = await drawRows({ ...fields, return_log_prob: false },
    { signal: controller.signal, ...options });
  return { data, count: shape[0] };
}

// As many rows as can be there soon, where more are on the way.
function soon(count) {
  const fitting = msPerRow === null ? FIRST_ROWS : Math.floor(SOON_MS / msPerRow);
  return isMoving ? Math.max(1, Math.min(count, fitting)) : count;
}

// Pictures keep their places: those that were not drawn yet stay as they were.
function over(rows, count) {
  if (!hasPixels(app.model) || rows.count === count || seen?.count !== count) return rows;
  const data = seen.data.slice();
  data.set(rows.data);
  return { data, count };
}

async function lookForAxes() {
  const key = JSON.stringify([app.fields(), app.model.version]);
  if (axes.key === key || hasPixels(app.model)) return;
  const rows = await ask({ ...app.fields(), ...AXES }, { shown: false });
  axes = { key, rows };
}

async function drawSamples(fields) {
  await lookForAxes();
  const count = soon(fields.num_samples), started = performance.now();
  seen = over(await ask({ ...fields, num_samples: count }), fields.num_samples);
  const ms = performance.now() - started;
  msPerRow = ms / count;
  byId("state").textContent = AT_REST;
  paint();
  if (count < fields.num_samples) return;
  say(`seed ${fields.seed}, ${count.toLocaleString("en")} samples at T = `
    + `${fields.temperature.toFixed(2)}, ${Math.round(ms)} ms`);
}

const say = text => { byId("drawn").textContent = text; };

// Have the states of what is wanted, asked for where they are of something else.
async function haveStates(fields) {
  const key = JSON.stringify([fields, app.model.version]);
  if (states?.key === key) return;
  byId("state").textContent = "asking for the states between noise and data; the first time takes "
    + "seconds …";
  await lookForAxes();
  states = { key, ...await askStates(app.model, fields, { signal: controller.signal }) };
  say(`seed ${fields.seed}, ${states.count < fields.num_samples ? "the first " : ""}`
    + `${states.count.toLocaleString("en")} samples at T = ${fields.temperature.toFixed(2)}, `
    + `${states.at.length} states`);
}

function drawState() {
  seen = between(states, progress());
  byId("state").textContent = describe(states, progress());
  paint();
}

async function draw() {
  clearComplaints(byId("view-samples"));
  const fields = wanted();
  if (progress() === 1 && !playing) return drawSamples(fields);
  await haveStates(fields);
  drawState();
}

// One request at a time: what is wanted meanwhile is asked for after it, so the last one is shown,
// and a slow model moves too.
async function update() {
  isWanted = true;
  if (isBusy) return;
  isBusy = true;
  while (isWanted) {
    isWanted = false;
    try {
      await draw();
    } catch (error) {
      if (isWanted) continue;
      stop();
      byId("state").textContent = "";
      app.fail(error, byId(FIELDS[error.errors?.[0]?.pointer] ?? "count"));
    }
  }
  isBusy = false;
}

// Draw what can be there soon, and all of it when nothing moves any more.
function move() {
  isMoving = true;
  clearTimeout(resting);
  resting = setTimeout(() => {
    isMoving = false;
    if (progress() === 1) update();
  }, REST_MS);
  update();
}

function paint() {
  if (seen === null) return;
  const { model } = app;
  if (hasPixels(model)) {
    drawPictures(byId("picture"), seen, model);
    byId("picture").setAttribute("aria-label", `${seen.count} pictures drawn from ${model.name}, `
      + `seed ${number("seed")}, temperature ${number("temperature")}`);
    return;
  }
  const features = isPlane(model) ? [0, 1] : [number("across"), number("up")];
  const names = featureNames(model);
  const ends = axesOf(axes.rows, features, isPlane(model));
  const outside = drawPoints(byId("plot"), seen, { features, names, ends });
  byId("outside").textContent = outside === 0 ? ""
    : `${outside.toLocaleString("en")} of them lie outside of the axes, which stay as they are at T = 1`;
  if (!isPlane(model)) fillTable(names);
}

function fillTable(names) {
  const width = names.length, shown = Math.min(width, SHOWN_FEATURES);
  const line = (kind, cells) => element("tr", {},
    ...cells.map(textContent => element(kind, { textContent })));
  const rows = Array.from({ length: Math.min(seen.count, SHOWN_ROWS) }, (_, row) =>
    line("td", Array.from(seen.data.subarray(row * width, row * width + shown),
      value => String(Number(value.toPrecision(4))))));
  byId("samples-table").replaceChildren(line("th", names.slice(0, shown)), ...rows);
}

function stop() {
  cancelAnimationFrame(playing);
  clearTimeout(playing);
  playing = 0;
  byId("samples-play").textContent = "Play";
  byId("samples-play").setAttribute("aria-pressed", "false");
}

function setProgress(value) {
  byId("progress").value = value;
  drawState();
}

// Go on smoothly, or, where motion is not wanted, from state to state.
function playOn(direction) {
  const isStill = matchMedia("(prefers-reduced-motion: reduce)").matches;
  const first = progress(), started = performance.now(), last = direction > 0 ? 1 : 0;
  const step = isStill ? 1 / (states.at.length - 1) : 0;
  let taken = 0;
  const next = () => {
    taken += 1;
    const gone = isStill ? taken * step : (performance.now() - started) / PLAY_MS;
    const now = Math.min(Math.max(first + direction * gone, 0), 1);
    setProgress(now);
    if (Math.abs(now - last) < 1e-6) return stop();
    playing = isStill ? setTimeout(next, STILL_MS) : requestAnimationFrame(next);
  };
  playing = isStill ? setTimeout(next, STILL_MS) : requestAnimationFrame(next);
}

async function play() {
  if (playing) return stop();
  const direction = byId("backwards").checked ? -1 : 1;
  const start = direction > 0 ? 0 : 1;
  if (progress() === 1 - start) byId("progress").value = start;
  playing = -1; // so that the states are asked for at the data's end too
  byId("samples-play").textContent = "Pause";
  byId("samples-play").setAttribute("aria-pressed", "true");
  await update();
  if (playing === -1) playOn(direction);
}

function changed() {
  states = null;
  update();
}

function anotherDraw() {
  byId("seed").value = Math.floor(Math.random() * 2 ** 32);
  byId("seed").dispatchEvent(new Event("change"));
}

function showTemperature() {
  byId("temperature-value").textContent = number("temperature").toFixed(2);
}

const fileName = () => `${app.model.name}-seed-${byId("seed").value}`;

function listen() {
  byId("draw").addEventListener("submit", event => {
    event.preventDefault();
    changed();
  });
  byId("count").addEventListener("change", () => {
    if (!check(byId("count"))) return;
    write({ count: byId("count").value });
    changed();
  });
  byId("seed").addEventListener("change", () => check(byId("seed")) && changed());
  byId("another").addEventListener("click", anotherDraw);
  byId("temperature").addEventListener("input", () => {
    showTemperature();
    move();
  });
  byId("progress").addEventListener("input", () => {
    stop();
    update();
  });
  byId("samples-play").addEventListener("click", play);
  for (const id of ["across", "up"]) {
    byId(id).addEventListener("change", () => {
      write({ [id]: byId(id).value });
      paint();
    });
  }
  byId("save-png").addEventListener("click", () =>
    savePng(byId(hasPixels(app.model) ? "picture" : "plot"), fileName()));
  byId("save-csv").addEventListener("click", () =>
    seen && saveCsv(seen, featureNames(app.model), fileName()));
  byId("save-npy").addEventListener("click", () =>
    seen && saveNpy(seen, app.model.event_shape, fileName()));
  onThemeChange(paint);
}

// What the address says, or what fits the model.
function readFields({ model }) {
  const isFlat = !hasPixels(model);
  const usual = isFlat ? isPlane(model) ? 2000 : 500 : 16;
  byId("count").value = read("count", usual);
  if (!byId("count").checkValidity()) {
    byId("count").value = usual;
    write({ count: null });
  }
  for (const [id, feature] of isFlat ? [["across", 0], ["up", 1]] : []) {
    readOption(byId(id), id, feature);
  }
}

// Another model: its own features.
function begin({ model }) {
  const isFlat = !hasPixels(model);
  byId("picture").hidden = isFlat;
  byId("plot").hidden = !isFlat;
  byId("samples-features").hidden = !isFlat || isPlane(model);
  const names = isFlat ? featureNames(model) : [];
  for (const id of ["across", "up"]) {
    byId(id).replaceChildren(...names.map((name, index) => new Option(name, index)));
  }
  msPerRow = null;
  byId("outside").textContent = "";
  byId("progress").value = 1;
  say("");
}

function show() {
  controller.abort();
  controller = new AbortController();
  stop();
  states = seen = null;
  const name = `${app.model.name} ${app.model.version}`;
  if (looksAt !== name) begin(app);
  looksAt = name;
  readFields(app);
  showTemperature();
  move(); // the first rows are there before all are
}

export const samples = {
  id: "samples",
  title: "Samples",
  unfit: () => null,
  mount(root, page) {
    app = page;
    root.innerHTML = HTML;
    for (const id of ["temperature", "seed"]) bind(byId(id));
    listen();
    return {
      show,
      hide() {
        stop();
        controller.abort();
        clearTimeout(resting);
      },
    };
  },
};
