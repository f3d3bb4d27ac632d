// One page to look at the served models: draw from them, score rows, and give the key first where
// the server wants one.

import { forgetKey, get, hasKey, keepKey, KeyRefused, post } from "./api.js";
import { plot } from "./plot.js";
import { explainRows, summarise } from "./verdicts.js";

const $ = id => document.getElementById(id);
let models = [];
const card = () => models.find(model => model.name === $("model").value);
const isPicture = model => model.num_levels !== null && model.event_shape.length === 3;

function show(id, text, isError = false) {
  $(id).textContent = text;
  $(id).classList.toggle("error", isError);
}

function choose() {
  const model = card();
  show("facts", `${model.family}, version ${model.version}, x ${JSON.stringify(model.event_shape)}, `
    + `${model.num_parameters.toLocaleString()} parameters, ${model.dtype} on ${model.device} `
    + `with ${model.engine}`);
  $("count").value = isPicture(model) ? 16 : model.features === 2 ? 2000 : 8;
  $("class-field").hidden = model.num_classes === null;
  $("label").max = (model.num_classes ?? 1) - 1;
  const zeros = shape => shape.length ? Array(shape[0]).fill(zeros(shape.slice(1))) : 0;
  const row = model.features <= 64 ? JSON.stringify([zeros(model.event_shape)]) : "";
  $("rows").value = $("suspects").value = row;
  $("alpha").value = model.calibration ? 0.01 : "";
  $("explain").max = model.features;
  for (const id of ["picture", "plot", "verdicts"]) $(id).hidden = true;
  for (const id of ["drawn", "table", "scored", "judged"]) show(id, "");
}

function withContext(body) {
  return card().num_classes === null ? body : { ...body, context: Number($("label").value) };
}

async function draw() {
  const model = card();
  const body = withContext({
    model: model.name,
    num_samples: Number($("count").value),
    temperature: Number($("temperature").value),
  });
  if ($("seed").value !== "") body.seed = Number($("seed").value);
  const started = performance.now();
  let seed;
  if (isPicture(model)) {
    const answer = await post("sample", { ...body, scale: 3 }, "image/png");
    seed = answer.headers.get("X-Seed");
    URL.revokeObjectURL($("picture").src);
    $("picture").src = URL.createObjectURL(await answer.blob());
    $("picture").hidden = false;
  } else {
    const answer = await (await post("sample", body)).json();
    seed = answer.seed;
    if (model.features === 2) plot($("plot"), answer.x.filter(row => row !== null));
    else show("table", answer.x.map(row => JSON.stringify(row)).join("\n"));
  }
  show("drawn", `seed ${seed}, ${Math.round(performance.now() - started)} ms`);
}

async function score() {
  const body = withContext({ model: card().name, x: JSON.parse($("rows").value) });
  show("scored", JSON.stringify(await (await post("log_prob", body)).json(), null, 2));
}

async function judge() {
  const body = withContext({ model: card().name, x: JSON.parse($("suspects").value) });
  for (const field of ["alpha", "explain"]) {
    if ($(field).value !== "") body[field] = Number($(field).value);
  }
  $("verdicts").hidden = true;
  const answer = await (await post("score", body)).json();
  explainRows($("verdicts"), answer);
  show("judged", summarise(answer));
}

// Only the form for the key: the server wants one, or has refused the one it was shown.
function askForKey(refusal = "") {
  forgetKey();
  for (const id of ["calls", "model-field", "forget"]) $(id).hidden = true;
  $("key-form").hidden = false;
  $("key").value = "";
  $("key").focus();
  show("facts", refusal, true);
}

function fail(error, place) {
  if (error instanceof KeyRefused) askForKey(error.message);
  else show(place, error.message, true);
}

function onSubmit(form, action, place) {
  $(form).addEventListener("submit", event => {
    event.preventDefault();
    action().catch(error => fail(error, place));
  });
}

async function load() {
  const answer = await get("models");
  models = answer.models;
  $("key-form").hidden = true;
  $("forget").hidden = !hasKey();
  $("calls").hidden = $("model-field").hidden = models.length === 0;
  if (models.length === 0) return show("facts", "no model is served");
  $("model").replaceChildren(...models.map(model => new Option(model.name)));
  if (answer.default) $("model").value = answer.default;
  choose();
}

async function useKey() {
  keepKey($("key").value.trim());
  await load();
}

$("model").addEventListener("change", choose);
$("forget").addEventListener("click", () => askForKey());
onSubmit("draw", draw, "drawn");
onSubmit("score", score, "scored");
onSubmit("judge", judge, "judged");
onSubmit("key-form", useKey, "facts");
load().catch(error => fail(error, "facts"));
