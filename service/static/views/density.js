// The density: log p over two features, a point that is dragged, and its latent beside it.

import { byId, clearComplaints } from "../page/dom.js";
import { featureNames, noLatents } from "../page/shapes.js";
import { read, readOption, write } from "../page/state.js";
import { onThemeChange } from "../page/theme.js";
import { HTML } from "./density/layout.js";
import { levelsOfSamples, SHARES } from "./density/contours.js";
import { makeLatent } from "./density/latent.js";
import { makeMoving, nats, short } from "./density/moving.js";
import { isWhole, makePicture, wholeOf } from "./density/picture.js";
import { drawRows, parseRow, rounded } from "./density/row.js";

const SEED = 0; // of the samples over the map
const CHECKS = ["samples", "lines", "warp"];
const isBeyond = (value, [low, high]) => value < low || value > high;
// Bounds as far apart, moved so that a value lies well between them.
const around = ([low, high], value) => isBeyond(value, [low, high])
  ? [value - (high - low) / 2, value + (high - low) / 2] : [low, high];

// What is seen: {row, pair, bounds, grid, samples, levels, lines, found, warped, …}.
const fresh = () => ({ row: null, pair: [0, 1], bounds: null, grid: null, samples: null });

function makeView(app) {
  const seen = fresh();
  const calls = {}; // by what they are for: an AbortController
  const isPlane = () => app.model.features === 2;

  // The signal of a new call; the one before is of no interest any more.
  function renew(name) {
    calls[name]?.abort();
    calls[name] = new AbortController();
    return calls[name].signal;
  }

  const abortAll = () => Object.values(calls).forEach(call => call.abort());
  const guard = (action, field = "density-row") => (...given) =>
    action(...given).catch(error => app.fail(error, byId(field)));

  const views = {};
  const signalOfPoint = () => (calls.point ?? (renew("point"), calls.point)).signal;
  const moving = makeMoving(app, seen, views, signalOfPoint);
  const { place, names } = moving;

  const moveTo = guard(async at => {
    if (!seen.bounds) return;
    const answer = moving.toX(at);
    const { point } = views.picture.plane;
    if (point.some((value, side) => isBeyond(value, seen.bounds[side]))) {
      view(seen.bounds.map((side, index) => around(side, point[index])));
    }
    await answer;
  });

  views.picture = makePicture(app, seen, {
    move: moveTo, release: guard(moving.release), hover: showHover, zoom, pan, lined: describe,
    whole: () => view(whole()),
  });
  views.latent = makeLatent(app, seen, { move: guard(moving.toZ), release: guard(moving.release) });
  const { picture, latent } = views;
  const whole = () => wholeOf(app.model, seen.samples, seen.pair);

  function showHover(at) {
    const found = at && picture.look(at);
    byId("density-hover").textContent = !found ? ""
      : `Here: ${names().map((name, side) => `${name} ${short(found.at[side])}`).join(", ")}: `
        + `log p ${nats(found.value)} nats`;
  }

  // What is seen

  const makeMap = guard(async options => {
    if (!seen.bounds) return;
    byId("density-refine").hidden = true;
    await picture.makeMap(renew("map"), options);
  });

  function view(bounds) {
    if (!seen.bounds) return undefined; // there is no row yet
    seen.bounds = bounds;
    write({ window: bounds.flat().map(rounded).join(",") });
    return makeMap();
  }

  function zoom(factor, about = picture.plane.point) {
    view(seen.bounds?.map(([low, high], side) => {
      const at = Math.min(Math.max(about[side], low), high);
      return [at + (low - at) * factor, at + (high - at) * factor];
    }));
  }

  function pan(direction) {
    view(seen.bounds?.map(([low, high], side) => {
      const far = 0.2 * (high - low) * direction[side];
      return [low + far, high + far];
    }));
  }

  async function fit() {
    if (!seen.bounds) return;
    write({ window: null });
    seen.bounds = whole();
    await makeMap({ isFitted: true });
  }

  function describe() {
    const { model } = app;
    const whose = isPlane() ? `${seen.samples?.x.length.toLocaleString()} drawn samples`
      : "the density in this map";
    const lines = !seen.lines ? "" : ` Lines hold ${SHARES.map((share, index) =>
      `${100 * share} % (log p ≥ ${seen.lines.levels[index].toFixed(2)})`).join(", ")} of ${whose}.`;
    const others = isPlane() ? "" : ` ${model.features === 3 ? "The other feature stays as it is"
      : `The other ${model.features - 2} features stay as they are`} in the row below; samples differ `
      + "in them too.";
    byId("density-caption").textContent = "Each colour is how dense the model says x is there: "
      + `log p, in nats (one nat more is 2.72 times as dense).${others}${lines}`;
  }

  async function showSamples(signal) {
    const most = app.model.cost?.decode === "evaluations" ? 500 : 2000;
    const count = Math.max(1, Math.min(most, Math.floor(2e5 / app.model.features)));
    seen.samples = await drawRows(app, count, SEED, signal);
    if (isPlane()) seen.levels = levelsOfSamples(seen.samples.logProb);
    if (seen.isDone) picture.showLines();
    picture.plane.draw();
  }

  // A row that is drawn with the seed that is chosen.
  async function drawRow(signal) {
    const { x } = await drawRows(app, 1, Number(byId("density-seed").value), signal);
    if (!x.length) throw new Error("the sample of this seed has no density: choose another seed");
    seen.row = x[0].map((value, index) =>
      isWhole(app.model, index) ? Math.floor(value) : rounded(value));
    byId("density-row").value = JSON.stringify(seen.row);
  }

  // Everything anew for the row that there is.
  async function start(signal, isFitted) {
    place();
    picture.plane.names = names();
    picture.plane.whole = seen.pair.map(index => isWhole(app.model, index));
    await new Promise((resolve, reject) => {
      picture.makeMap(renew("map"), { begun: resolve, isFitted }).then(resolve, error =>
        // Another window was asked for meanwhile: its map comes in place of this one.
        error.name === "AbortError" && !signal.aborted ? resolve() : reject(error));
    });
    await moving.lookAt();
    await Promise.all([
      seen.samples ? null : showSamples(signal),
      isPlane() && !seen.warped ? latent.warp(signal) : null,
    ]);
    seen.isStarted = true;
    picture.plane.draw();
  }

  const changeRow = guard(async text => {
    clearComplaints(byId("view-density"));
    seen.row = parseRow(text, app.model);
    write({ row: text === "" ? null : JSON.stringify(seen.row) });
    if (!seen.isStarted) return show(); // it failed, or is not there yet
    if (isPlane()) {
      place();
      return moving.lookAt();
    }
    await start(renew("rest"), false);
  });

  const changeSeed = guard(async () => {
    clearComplaints(byId("view-density"));
    write({ row: null, rowseed: byId("density-seed").value === "0" ? null : byId("density-seed").value });
    if (!seen.isStarted) return show();
    await drawRow(renew("row"));
    if (isPlane()) {
      place();
      return moving.lookAt();
    }
    seen.bounds = whole();
    write({ window: null });
    await start(renew("rest"), true);
  }, "density-seed");

  const changePair = guard(async () => {
    seen.pair = ["density-first", "density-second"].map(id => Number(byId(id).value));
    write({ fx: names()[0], fy: names()[1], window: null });
    if (seen.pair[0] === seen.pair[1]) throw new Error("choose two different features");
    clearComplaints(byId("view-density"));
    if (!seen.isStarted) return show();
    seen.bounds = whole();
    await start(renew("rest"), true);
  }, "density-second");

  function showFields() {
    const all = featureNames(app.model);
    ["density-first", "density-second"].forEach((id, side) => {
      byId(id).replaceChildren(...all.map((name, index) => new Option(name, index)));
      const given = all.indexOf(read(["fx", "fy"][side]));
      seen.pair[side] = given === -1 ? side : given;
    });
    if (seen.pair[0] === seen.pair[1]) seen.pair[1] = seen.pair[0] === 0 ? 1 : 0;
    byId("density-first").value = seen.pair[0];
    byId("density-second").value = seen.pair[1];
    byId("density-pair").hidden = byId("density-bars-side").hidden = isPlane();
    byId("density-z-side").hidden = byId("density-warp-field").hidden = !isPlane();
    byId("density-seed").value = /^\d+$/.test(read("rowseed")) ? read("rowseed") : "0";
    byId("density-row").value = read("row", "");
    readOption(byId("density-nats"), "nats", "10");
    for (const name of CHECKS) {
      const box = byId(`density-${name}`);
      box.checked = read(name, name === "samples" && !isPlane() ? "false" : "true") === "true";
    }
  }

  async function show() {
    abortAll();
    delete calls.point;
    for (const name of Object.keys(seen)) delete seen[name];
    Object.assign(seen, fresh());
    showFields();
    describe();
    const signal = renew("rest");
    if (read("row") !== null) seen.row = parseRow(read("row"), app.model);
    else await drawRow(signal);
    const given = (read("window") ?? "").split(",").map(Number);
    const isGiven = given.length === 4 && given.every(Number.isFinite)
      && given[0] < given[1] && given[2] < given[3];
    const isKnown = seen.pair.every(index => {
      const { low, high } = app.model.provenance?.columns?.[index] ?? {};
      return low < high;
    });
    if (!isGiven && !isKnown) await showSamples(signal);
    seen.bounds = isGiven ? [given.slice(0, 2), given.slice(2)]
      : whole();
    await start(signal, !isGiven && !isPlane());
  }

  function listen() {
    byId("density-row").addEventListener("change", event => changeRow(event.target.value));
    byId("density-seed").addEventListener("change", changeSeed);
    byId("density-another").addEventListener("click", () => {
      byId("density-seed").value = Number(byId("density-seed").value) + 1;
      changeSeed();
    });
    for (const id of ["density-first", "density-second"]) byId(id).addEventListener("change", changePair);
    for (const name of CHECKS) {
      byId(`density-${name}`).addEventListener("change", ({ target }) => {
        write({ [name]: String(target.checked) });
        picture.plane.draw();
        latent.plane.draw();
      });
    }
    byId("density-nats").addEventListener("change", ({ target }) => {
      write({ nats: target.value === "10" ? null : target.value });
      picture.repaint();
      latent.repaint();
    });
    for (const [id, action] of [
      ["in", () => zoom(0.7)], ["out", () => zoom(1 / 0.7)], ["left", () => pan([-1, 0])],
      ["right", () => pan([1, 0])], ["up", () => pan([0, 1])], ["down", () => pan([0, -1])],
      ["fit", guard(fit)], ["whole", () => view(whole())],
      ["refine", () => makeMap({ isPatient: true })],
    ]) byId(`density-${id}`).addEventListener("click", action);
    onThemeChange(() => {
      picture.repaint();
      latent.repaint();
    });
  }

  listen();
  return { show: guard(show), hide: abortAll };
}

// Why a model has no map of its density.
function unfit(model) {
  if (model.event_shape.length !== 1) return "a picture has too many pixels for a map of two";
  return model.features < 2 ? "a map needs two features" : noLatents(model);
}

export const density = {
  id: "density",
  title: "Density",
  unfit,
  mount(root, app) {
    root.innerHTML = HTML;
    return makeView(app);
  },
};
