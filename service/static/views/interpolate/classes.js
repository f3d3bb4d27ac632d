// Class-conditional models: one latent under every class, and a direction from class to class.

import { byId, clearComplaints } from "../../page/dom.js";
import { hasPixels } from "../../page/pictures.js";
import { featureNames } from "../../page/shapes.js";
import { read, readOption, write } from "../../page/state.js";
import { fillTable } from "../../page/table.js";
import { densities, through } from "./decoding.js";
import { directionBetween } from "./direction.js";
import { makeEnd } from "./end.js";
import { drawFrames, inNats, short } from "./frames.js";

export const HTML = `
  <h2>From class to class</h2>
  <p id="no-classes" class="quiet"></p>
  <div id="with-classes">
    <div id="class-row" class="side-by-side"></div>
    <p id="classes-status" role="status"></p>
    <h3>The same latent, another class</h3>
    <p class="quiet">The row becomes a latent in its own class, and that latent is decoded in every
      class. A flow that is told the class need not keep it in z: what stays is what z holds
      besides, such as slant and weight of a stroke.</p>
    <ol id="by-class" class="film" tabindex="0" aria-label="the same latent in every class"></ol>
    <table id="by-class-rows" tabindex="0" aria-label="rows by class" hidden></table>
    <h3>An attribute direction</h3>
    <p><label>from <select id="class-from"></select></label>
    <label>to <select id="class-to"></select></label>
    <label>as far as <input type="range" id="strength" min="0.5" max="4" step="0.25" value="1">
      <output id="strength-shown"></output></label></p>
    <p id="direction-said" role="status"></p>
    <ol id="direction" class="film" tabindex="0" aria-label="the row along the direction"></ol>
    <table id="direction-rows" tabindex="0" aria-label="rows along the direction" hidden></table>
    <p class="quiet">z + s (mean of z over the one class − mean of z over the other). Under each
      frame is log p(x), and the evidence for the second class:
      log p(x | second) − log p(x | first), in nats.</p>
  </div>`;

const MAX_CLASSES = 20;
const STEPS = 7;
// A direction not longer than this many times what scatter makes says little.
const CLEAR = 1.5;

const className = (model, label) => model.class_names?.[label] ?? String(label);

// Rows of more numbers than fit below a frame: a column a frame.
function drawRows(table, model, frames) {
  table.hidden = hasPixels(model) || model.features <= 3;
  if (table.hidden) return;
  fillTable(table, ["", ...frames.map(({ place }) => place)], featureNames(model).map((name, feature) =>
    [name, ...frames.map(({ row }) => short(row[feature]))]));
}

function draw(id, model, frames) {
  drawFrames(byId(id), model, frames);
  drawRows(byId(`${id}-rows`), model, frames);
}

// The latent of the row, and what it is in every class.
async function showClasses(part, signal) {
  const { app } = part;
  const { model } = app;
  const labels = Array.from({ length: Math.min(model.num_classes, MAX_CLASSES) }, (_, at) => at);
  const rows = await through("decode", app, labels.map(() => part.z),
    { signal, context: labels, shown: true });
  const logProbs = await densities(app, rows, { signal, context: labels });
  if (signal.aborted) return;
  const own = app.fields().context;
  draw("by-class", model, labels.map((label, at) => ({
    row: rows[at], logProb: logProbs[at],
    place: `${className(model, label)}${label === own ? " (its own)" : ""}`,
  })));
  const known = rows[own] ? ` Round trip: ${part.row.reduce((largest, value, at) =>
    Math.max(largest, Math.abs(value - rows[own][at])), 0).toExponential(1)} at most.` : "";
  part.control.say(`${part.note}, as class ${className(model, own)}.${known}`);
}

function tellDirection(app, { norm, chance, pairs }, from, to) {
  const ratio = chance > 0 ? `${short(norm / chance)} times what scatter alone makes` : "no scatter";
  const verdict = norm > CLEAR * chance ? "a direction that these classes share"
    : "hardly more than chance: z of this model says little of these classes";
  byId("direction-said").textContent = `From ${className(app.model, from)} to `
    + `${className(app.model, to)}: length ${short(norm)}, ${ratio}, `
    + `over ${pairs} pairs of samples: ${verdict}. All are encoded as class `
    + `${className(app.model, app.fields().context)}: each as its own class would be plain noise.`;
}

// The row along the direction; the direction itself is kept.
async function showDirection(part, signal) {
  const { app } = part;
  const [from, to] = ["class-from", "class-to"].map(id => Number(byId(id).value));
  if (from === to) {
    draw("direction", app.model, []);
    byId("direction-said").textContent = "";
    throw Object.assign(new Error("choose two different classes"), { field: byId("class-to") });
  }
  const key = JSON.stringify([app.fields(), from, to]);
  if (part.directionOf !== key) {
    part.direction = await directionBetween(app, from, to, signal);
    part.directionOf = key;
  }
  tellDirection(app, part.direction, from, to);
  const { step } = part.direction;
  const strengths = Array.from({ length: STEPS }, (_, at) =>
    Number(byId("strength").value) * at / (STEPS - 1));
  const along = strengths.map(strength =>
    Float64Array.from(part.z, (value, at) => value + strength * step[at]));
  const rows = await through("decode", app, along, { signal, shown: true });
  const [own, first, second] = await Promise.all([app.fields().context, from, to].map(context =>
    densities(app, rows, { signal, context })));
  if (signal.aborted) return;
  draw("direction", app.model, strengths.map((strength, at) => ({
    row: rows[at], logProb: own[at], place: `s ${short(strength)}`,
    note: `${className(app.model, to)}: ${inNats(second[at] - first[at])}`,
  })));
}

function keep() {
  byId("strength-shown").textContent = byId("strength").value;
  write({
    from: byId("class-from").value, to: byId("class-to").value,
    strength: byId("strength").value === byId("strength").defaultValue ? null
      : byId("strength").value,
  });
}

async function update(part, { isSameRow = false } = {}) {
  part.asking.abort();
  part.asking = new AbortController();
  const { signal } = part.asking;
  clearComplaints(byId("with-classes"));
  keep();
  try {
    if (!isSameRow || !part.z) {
      part.z = null;
      const given = await part.control.row(signal);
      byId("classes-status").textContent = given ? "" : "The row is not there yet: give it above.";
      if (!given) return;
      const [z] = await through("encode", part.app, [given.row], { signal });
      if (!z.every(Number.isFinite)) throw new Error("the model has no latent for this row");
      Object.assign(part, { row: given.row, note: given.note, z });
      await showClasses(part, signal);
    }
    await showDirection(part, signal);
  } catch (error) {
    if (!signal.aborted) part.app.fail(error, part.control.field());
  }
}

function showModel({ app: { model, fields } }) {
  const own = fields().context;
  for (const [id, label] of [["class-from", own], ["class-to", (own + 1) % model.num_classes]]) {
    byId(id).replaceChildren(...Array.from({ length: model.num_classes }, (_, at) =>
      new Option(className(model, at), at)));
    readOption(byId(id), id.slice("class-".length), label);
  }
  byId("strength").value = read("strength", byId("strength").defaultValue);
}

/** The part of the view for classes: {show, hide}; its HTML is in the page already. */
export function makeClasses(app) {
  const part = { app, z: null, asking: new AbortController(), direction: null, directionOf: null };
  part.control = makeEnd(app, "row", { name: "The row", seed: 1, changed: () => update(part) });
  byId("class-row").append(part.control.root);
  for (const id of ["class-from", "class-to", "strength"]) {
    byId(id).addEventListener("input", () => update(part, { isSameRow: true }));
  }
  return {
    show() {
      const { model } = app;
      const hasClasses = model.num_classes !== null && model.num_classes > 1;
      byId("with-classes").hidden = !hasClasses;
      byId("no-classes").hidden = hasClasses;
      byId("no-classes").textContent = "This model was trained without classes, so there is no "
        + "direction from one to another. A model with num_classes has it.";
      if (!hasClasses) return undefined;
      showModel(part);
      part.control.show();
      return update(part);
    },
    hide: () => part.asking.abort(),
  };
}
