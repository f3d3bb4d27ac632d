// One page to look at the served models: its views, the model that they look at, and the key.

import { get } from "./page/api.js";
import { byId, complain, element } from "./page/dom.js";
import { forgetKey, hasKey, keepKey, KeyRefused } from "./page/key.js";
import { forgetRequest, watchRequest } from "./page/request.js";
import { keepOnly, read, write } from "./page/state.js";
import { VIEWS } from "./views/index.js";

let model = null; // the card of the model that is looked at, as GET /models/NAME has it
const mounted = new Map(); // by id of the view: what its mount gave
let chosen = null; // the view that is shown

// What the views know of the page.
const app = {
  get model() { return model; },

  // The fields of a request that say which model, and of which class.
  fields() {
    const context = !byId("class-field").hidden ? Number(byId("label").value)
      : !byId("context-field").hidden && byId("context").value
        ? JSON.parse(byId("context").value) : undefined;
    return { model: model.name, ...context === undefined ? {} : { context } };
  },

  // Say beside a field what went wrong. What was given up on purpose is no failure.
  fail(error, field) {
    if (error instanceof KeyRefused) askForKey(error.message);
    else if (error.name !== "AbortError") complain(field, error.message);
  },
};

function say(text, isError = false) {
  byId("facts").textContent = text;
  byId("facts").classList.toggle("error", isError);
}

function askForKey(refusal = "") {
  forgetKey();
  for (const id of ["calls", "choice", "forget"]) byId(id).hidden = true;
  byId("key-form").hidden = false;
  byId("key").value = "";
  byId("key").focus();
  say(refusal, true);
}

const fail = error => error instanceof KeyRefused ? askForKey(error.message)
  : say(error.message, true);

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
  if (chosen && chosen !== view) mounted.get(chosen.id)?.hide?.();
  chosen = view;
  write({ view: view === VIEWS[0] ? null : view.id });
  for (const other of VIEWS) {
    const isChosen = other === view;
    tabOf(other).setAttribute("aria-selected", String(isChosen));
    tabOf(other).tabIndex = isChosen ? 0 : -1;
    panelOf(other).hidden = !isChosen;
  }
  if (!mounted.has(view.id)) mounted.set(view.id, view.mount(panelOf(view), app));
  try {
    await mounted.get(view.id).show();
  } catch (error) {
    if (error.name !== "AbortError") fail(error);
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
  if (model.num_classes !== null) byId("label").value = read("class", "0");
  byId("context").value = read("context", "");
}

async function lookAt(name, note = "") {
  forgetRequest();
  model = await get(`models/${encodeURIComponent(name)}`, { shown: true });
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
  await lookAt(byId("model").value);
}

async function load() {
  const answer = await get("models");
  byId("key-form").hidden = true;
  byId("forget").hidden = !hasKey();
  byId("calls").hidden = byId("choice").hidden = answer.models.length === 0;
  if (answer.models.length === 0) return say("no model is served");
  byId("model").replaceChildren(...answer.models.map(({ name }) => new Option(name)));
  const names = answer.models.map(({ name }) => name);
  // Where nothing is said: one whose density is seen at once.
  const telling = answer.models.find(({ features }) => features === 2)?.name ?? names[0];
  const wanted = read("model", answer.default ?? telling);
  if (names.includes(wanted)) {
    byId("model").value = wanted;
    return lookAt(wanted);
  }
  byId("model").value = telling;
  keepOnly("view"); // all else was of the other model
  await lookAt(telling, `No model ${wanted} is served here; ${telling} is shown. `);
}

byId("key-form").addEventListener("submit", event => {
  event.preventDefault();
  try {
    keepKey(byId("key").value.trim());
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
    choose(chosen).catch(fail);
  });
}
addEventListener("hashchange", () => load().catch(fail)); // a link was pasted
makeTabs();
watchRequest();
load().catch(fail);
