// One page to look at the served models: its views, the model that they look at, and the key.

import { get } from "./page/api.js";
import { byId, clearComplaints, complain, element } from "./page/dom.js";
import { forgetKey, hasKey, keepKey, KeyRefused } from "./page/key.js";
import { forgetRequest, watchRequest } from "./page/request.js";
import { zeros } from "./page/shapes.js";
import { keepOnly, read, readAgain, readOption, write } from "./page/state.js";
import { VIEWS } from "./views/index.js";

let model = null; // the card of the model that is looked at, as GET /models/NAME has it
const mounted = new Map(); // by id of the view: what its mount gave
let chosen = null; // the view that is shown
let asking = new AbortController(); // what is asked of the server's models

// What the views know of the page.
const app = {
  get model() { return model; },

  // The fields of a request that say which model, and of which class.
  fields() {
    const context = givenContext();
    return { model: model.name, ...context === undefined ? {} : { context } };
  },

  // Say beside a field what went wrong. What was given up on purpose is no failure. An error that
  // has a field of its own, and one of the context, stands beside that.
  fail(error, field) {
    const isContext = error.errors?.[0]?.pointer?.startsWith("/context");
    if (error instanceof KeyRefused) {
      if (byId("key-form").hidden) askForKey(error.message); // else it is asked for already
    } else if (error.name !== "AbortError") {
      complain(isContext ? byId("context") : error.field ?? field, error.message);
    }
  },
};

function givenContext() {
  if (!byId("class-field").hidden) return Number(byId("label").value);
  const field = byId("context");
  if (byId("context-field").hidden || !field.value) return undefined;
  try {
    return JSON.parse(field.value);
  } catch {
    const example = JSON.stringify(zeros(model.context_shape));
    throw Object.assign(new Error(`expected a context as JSON, such as ${example}`), { field });
  }
}

// The signal of what is asked now; what was asked before is of no interest any more.
function renew() {
  asking.abort();
  asking = new AbortController();
  return asking.signal;
}

const leave = () => chosen && mounted.get(chosen.id)?.hide?.();

function say(text, isError = false) {
  byId("facts").textContent = text;
  byId("facts").classList.toggle("error", isError);
}

function askForKey(refusal = "") {
  forgetKey();
  renew();
  leave();
  for (const id of ["calls", "choice", "forget"]) byId(id).hidden = true;
  byId("key-form").hidden = false;
  byId("key").value = "";
  byId("key").focus();
  say(refusal, true);
}

function fail(error) {
  if (error instanceof KeyRefused) askForKey(error.message);
  else if (error.name !== "AbortError") say(error.message, true);
}

const tabOf = view => byId(`tab-${view.id}`);
const panelOf = view => byId(`view-${view.id}`);

function makeTabs() {
  for (const view of VIEWS) {
    const tab = element("button", {
      id: `tab-${view.id}`, type: "button", role: "tab", textContent: view.title,
      "aria-controls": `view-${view.id}`, "aria-selected": "false", tabIndex: -1,
    });
    tab.addEventListener("click", () => choose(view));
    byId("tabs").append(tab);
    byId("views").append(element("section", {
      id: `view-${view.id}`, role: "tabpanel", "aria-labelledby": tab.id, hidden: true,
    }));
  }
  byId("tabs").addEventListener("keydown", event => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const fitting = VIEWS.filter(view => !tabOf(view).disabled);
    const next = fitting[(fitting.indexOf(chosen) + step + fitting.length) % fitting.length];
    choose(next);
    tabOf(next).focus();
  });
}

async function choose(view) {
  if (chosen !== view) leave();
  chosen = view;
  write({ view: view === VIEWS[0] ? null : view.id });
  for (const other of VIEWS) {
    const isChosen = other === view;
    tabOf(other).setAttribute("aria-selected", String(isChosen));
    tabOf(other).tabIndex = isChosen ? 0 : -1;
    panelOf(other).hidden = !isChosen;
  }
  if (!mounted.has(view.id)) mounted.set(view.id, view.mount(panelOf(view), app));
  readAgain(panelOf(view));
  try {
    await mounted.get(view.id).show();
  } catch (error) {
    fail(error);
  }
}

// A view that does not fit the model says why, in the title of its tab and below the tabs.
function chooseFitting() {
  for (const view of VIEWS) {
    const reason = view.unfit(model);
    tabOf(view).disabled = reason !== null;
    tabOf(view).title = reason ?? "";
  }
  byId("unfit").textContent = VIEWS.filter(view => view.unfit(model) !== null)
    .map(view => `No view "${view.title}": ${view.unfit(model)}.`).join(" ");
  const wanted = VIEWS.find(view => view.id === read("view"));
  const fits = view => view && view.unfit(model) === null;
  return choose(fits(wanted) ? wanted : VIEWS.find(fits));
}

function showContextFields() {
  byId("class-field").hidden = model.num_classes === null;
  byId("context-field").hidden = model.num_classes !== null || model.context_shape === null;
  const names = model.class_names ?? [];
  byId("label").replaceChildren(...Array.from({ length: model.num_classes ?? 0 },
    (_, index) => new Option(names[index] ?? index, index)));
  if (model.num_classes !== null) readOption(byId("label"), "class", "0");
  byId("context").value = read("context", "");
}

// Look at another model. Until it is there nothing can be asked of the one before under its name.
async function lookAt(name, signal, note = "") {
  forgetRequest();
  leave();
  clearComplaints(byId("choice"));
  byId("calls").inert = true;
  try {
    model = await get(`models/${encodeURIComponent(name)}`, { shown: true, signal });
  } catch (error) {
    if (!signal.aborted) byId("calls").hidden = true;
    throw error;
  }
  byId("calls").hidden = byId("calls").inert = false;
  // Left out of the answer where they are null.
  for (const fact of ["num_classes", "num_levels", "context_shape", "calibration",
    "feature_names", "support"]) model[fact] ??= null;
  say(`${note}${model.family}, version ${model.version}, x ${JSON.stringify(model.event_shape)}, `
    + `${model.num_parameters.toLocaleString()} parameters, ${model.dtype} on ${model.device} `
    + `with ${model.engine}`);
  showContextFields();
  await chooseFitting();
}

async function changeModel() {
  keepOnly("view");
  write({ model: byId("model").value });
  await lookAt(byId("model").value, renew());
}

async function load() {
  const signal = renew();
  const answer = await get("models", { signal });
  byId("key-form").hidden = true;
  byId("forget").hidden = !hasKey();
  byId("choice").hidden = answer.models.length === 0;
  if (answer.models.length === 0) byId("calls").hidden = true;
  if (answer.models.length === 0) return say("no model is served");
  byId("model").replaceChildren(...answer.models.map(({ name }) => new Option(name)));
  const names = answer.models.map(({ name }) => name);
  // Where nothing is said: one whose density is seen at once.
  const telling = answer.models.find(({ features }) => features === 2)?.name ?? names[0];
  const wanted = read("model", answer.default ?? telling);
  if (names.includes(wanted)) {
    byId("model").value = wanted;
    return lookAt(wanted, signal);
  }
  byId("model").value = telling;
  keepOnly("view"); // all else was of the other model
  await lookAt(telling, signal, `No model ${wanted} is served here; ${telling} is shown. `);
}

byId("key-form").addEventListener("submit", event => {
  event.preventDefault();
  try {
    const given = byId("key").value.trim();
    byId("key").value = "";
    keepKey(given);
    load().catch(fail);
  } catch (error) {
    fail(error);
  }
});
byId("forget").addEventListener("click", () => askForKey());
byId("model").addEventListener("change", () => changeModel().catch(fail));
for (const [id, name] of [["label", "class"], ["context", "context"]]) {
  byId(id).addEventListener("change", () => {
    write({ [name]: byId(id).value });
    clearComplaints(byId("choice"));
    choose(chosen).catch(fail);
  });
}
addEventListener("hashchange", () => load().catch(fail)); // a link was pasted
makeTabs();
watchRequest();
load().catch(fail);
