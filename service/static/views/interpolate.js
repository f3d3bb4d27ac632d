// Two rows, and what lies between them: the path between their latents, decoded as a film strip.

import { drawRows } from "../page/api.js";
import { byId, clearComplaints } from "../page/dom.js";
import { hasPixels } from "../page/pictures.js";
import { isPlane, noLatents } from "../page/shapes.js";
import { read, write } from "../page/state.js";
import { onThemeChange } from "../page/theme.js";
import { HTML as CLASSES, makeClasses } from "./interpolate/classes.js";
import { decodedPath, densities, spread, straight } from "./interpolate/decoding.js";
import { makeEnd } from "./interpolate/end.js";
import { unstack } from "./interpolate/path.js";
import { describe, drawBetween, drawCharts, drawFilms, place, places, tellEnds, tellFormula }
  from "./interpolate/show.js";

const HTML = `
  <h2>From one row to another</h2>
  <p class="quiet">A and B become latents z. The path between the latents is decoded, so that each
    frame is a row that the model itself can make.</p>
  <div id="ends" class="side-by-side"></div>
  <p><label>frames <input type="range" id="frames" min="5" max="15" value="9">
    <output id="frames-shown"></output></label>
  <label><input type="checkbox" id="compare"> compare with the straight line in x</label></p>
  <p id="way" role="status"></p>
  <h3>Along the path of the latents</h3>
  <ol id="film" class="film" aria-label="frames along the path of the latents"></ol>
  <div id="straight" hidden>
    <h3>Straight line in x</h3>
    <ol id="blend" class="film" tabindex="0"
      aria-label="frames along the straight line in x"></ol>
    <p class="quiet">x(t) = (1 − t) A + t B mixes numbers: pictures are double exposed, and rows may
      lie where there is no data. log p alone does not always show it, as smooth pictures tend to
      have more of it.</p>
  </div>
  <div class="side-by-side">
    <div>
      <h3>At one t</h3>
      <canvas id="between" role="img"></canvas>
      <p><label>t <input type="range" id="t" min="0" max="1" step="0.025" value="0.5">
        <output id="t-shown"></output></label>
      <button type="button" id="between-play">Play</button></p>
    </div>
    <div id="along"></div>
  </div>
  <div id="by-feature" class="small-multiples"></div>
  <p id="formula" class="quiet"></p>`;

const SAMPLES = { plane: 1500, table: 256 };
const FINE = 41; // places that Play shows, those of the slider
const STEP_MS = 60; // from one to the next
const still = matchMedia("(prefers-reduced-motion: reduce)");

// Samples that say where rows lie.
async function drawSamples({ app, model }, signal) {
  if (hasPixels(model)) return [];
  const num_samples = SAMPLES[isPlane(model) ? "plane" : "table"];
  const fields = { ...app.fields(), num_samples, seed: 0 };
  return unstack(await drawRows(fields, { shown: false, signal })).filter(row => row.every(Number.isFinite));
}

function fail(view, error) {
  const pointer = error.errors?.[0]?.pointer ?? "";
  const end = error.end ?? (pointer.startsWith("/x/1") ? 1 : 0);
  view.app.fail(error, view.controls[end].field());
}

// The rows of both ends, null for one that was not given yet.
function givenEnds(view, signal) {
  return Promise.all(view.controls.map(async (control, end) => {
    try {
      return await control.row(signal);
    } catch (error) {
      throw Object.assign(error, { end });
    }
  }));
}

function clear(view) {
  view.decoded = null;
  for (const { chart } of view.charts) chart.destroy();
  view.charts = [];
  for (const id of ["film", "blend", "along", "by-feature"]) byId(id).replaceChildren();
  for (const id of ["formula", "way", "t-shown"]) byId(id).textContent = "";
  byId("between").hidden = byId("straight").hidden = true;
}

// All of it anew: first the rows, then what is known of them.
async function update(view) {
  const signal = view.restart();
  clearComplaints(view.root);
  byId("frames-shown").textContent = byId("frames").value;
  write({
    frames: byId("frames").value === byId("frames").defaultValue ? null : byId("frames").value,
    compare: byId("compare").checked || null,
  });
  try {
    const given = await givenEnds(view, signal);
    if (signal.aborted) return;
    const missing = given.indexOf(null);
    if (missing < 0) await follow(view, given, signal);
    else {
      clear(view);
      byId("way").textContent = `${"AB"[missing]} is not there yet: give it above.`;
    }
  } catch (error) {
    if (signal.aborted) return;
    clear(view);
    fail(view, error);
  }
}

async function follow(view, given, signal) {
  const { app, model } = view;
  const rows = given.map(({ row }) => row);
  const of = JSON.stringify(app.fields());
  const samples = view.samplesOf === of ? view.samples : await drawSamples(view, signal);
  const decoded = await decodedPath(app, rows, signal);
  await decoded.rows([...places(), place(), ...isPlane(model) ? spread(FINE) : []],
    { signal, shown: true });
  if (signal.aborted) return;
  const blend = byId("compare").checked ? straight(...rows, places()) : [];
  Object.assign(view, { decoded, samples, samplesOf: of, blend, blendDensities: [] });
  tellFormula(decoded);
  tellEnds(view, given.map(({ note }) => note));
  drawFilms(view, view.scrub);
  drawBetween(view);
  [view.blendDensities] = await Promise.all([
    blend.length ? densities(app, blend, { signal }) : [],
    decoded.logProbs([...places(), place()], { signal }),
  ]);
  if (signal.aborted) return;
  describe(decoded);
  drawFilms(view, view.scrub);
  drawCharts(view);
  drawBetween(view);
}

// What is there at once; what is asked for, as soon as it comes.
async function scrub(view, t) {
  byId("t").value = t;
  write({ t: byId("t").value === byId("t").defaultValue ? null : byId("t").value });
  view.scrubbing.abort();
  if (!view.decoded) return;
  view.scrubbing = new AbortController();
  const { signal } = view.scrubbing;
  drawBetween(view);
  try {
    await view.decoded.logProbs([place()], { signal });
    if (!signal.aborted) drawBetween(view);
  } catch (error) {
    if (!signal.aborted) view.app.fail(error, byId("t"));
  }
}

function stop(view) {
  clearInterval(view.timer);
  view.timer = 0;
  byId("between-play").textContent = still.matches ? "Next frame" : "Play";
}

async function play(view) {
  if (view.timer) return stop(view);
  if (!view.decoded) return;
  if (still.matches) return scrub(view, places().find(t => t > place()) ?? 0);
  byId("between-play").textContent = "Stop";
  const { decoded } = view;
  let step = Math.round(place() * (FINE - 1));
  view.timer = setInterval(() => {
    step = (step + 1) % (2 * (FINE - 1)); // there and back
    byId("t").value = Math.min(step, 2 * (FINE - 1) - step) / (FINE - 1);
    drawBetween(view);
  }, STEP_MS);
  try {
    await decoded.logProbs(spread(FINE), { signal: view.asking.signal });
  } catch (error) {
    if (view.decoded !== decoded || error.name === "AbortError") return;
    stop(view);
    view.app.fail(error, byId("t"));
  }
}

function makeView(root, app) {
  const view = {
    root, app,
    get model() { return app.model; },
    shown: null, // the name of the model
    decoded: null, blend: [], blendDensities: [], samples: [], samplesOf: null, charts: [], timer: 0,
    asking: new AbortController(), // for the whole
    scrubbing: new AbortController(), // for the row at t
    restart() {
      stop(view);
      view.asking.abort();
      view.scrubbing.abort();
      view.asking = new AbortController();
      return view.asking.signal;
    },
    scrub: t => scrub(view, t),
  };
  view.controls = [["a", 1], ["b", 2]].map(([side, seed]) =>
    makeEnd(app, side, { seed, changed: () => update(view) }));
  byId("ends").append(...view.controls.map(control => control.root));
  return view;
}

export const interpolate = {
  id: "interpolate",
  title: "Between two rows",
  unfit: noLatents,
  mount(root, app) {
    root.innerHTML = `<div id="two-rows">${HTML}</div>${CLASSES}`;
    const view = makeView(byId("two-rows"), app);
    const classes = makeClasses(app);
    byId("frames").addEventListener("input", () => update(view));
    byId("compare").addEventListener("change", () => update(view));
    byId("t").addEventListener("input", () => scrub(view, byId("t").value));
    byId("between-play").addEventListener("click", () => play(view));
    onThemeChange(() => {
      if (!view.decoded || root.hidden) return;
      drawCharts(view);
      drawBetween(view);
    });
    return {
      show() {
        if (view.shown !== app.model.name) clear(view); // rows of another shape
        view.shown = app.model.name;
        byId("frames").value = read("frames", byId("frames").defaultValue);
        byId("t").value = read("t", byId("t").defaultValue);
        byId("compare").checked = read("compare") === "true";
        for (const control of view.controls) control.show();
        return Promise.all([update(view), classes.show()]);
      },
      hide() {
        view.restart();
        classes.hide();
      },
    };
  },
};
