// The row that a map is about: drawn with a seed, or entered.

import { callJson } from "../../page/api.js";
import { parseJson } from "../../page/json.js";
import { featureNames } from "../../page/shapes.js";

const example = model => model.features <= 12 ? `[${Array(model.features).fill(0).join(", ")}]`
  : `[0, 0, …] of ${model.features} numbers`;

function numbersOf(value, model) {
  if (Array.isArray(value)) return value.length === 1 && Array.isArray(value[0]) ? value[0] : value;
  const names = featureNames(model);
  const missing = names.filter(name => !(name in value));
  if (missing.length) throw new Error(`expected all features by name, ${missing[0]} is missing`);
  const unknown = Object.keys(value).filter(name => !names.includes(name));
  if (unknown.length) throw new Error(`the model has no feature ${unknown[0]}: it has ${names}`);
  return names.map(name => value[name]);
}

// The row that a text holds: a list, or an object by the features' names.
export function parseRow(text, model) {
  const value = parseJson(text, example(model));
  if (value === null || typeof value !== "object") {
    throw new Error(`expected a row as JSON, such as ${example(model)}, got ${text.trim()}`);
  }
  const row = numbersOf(value, model);
  if (row.length !== model.features) {
    throw new Error(`expected ${model.features} numbers, got ${row.length}`);
  }
  const wrong = row.findIndex(number => !Number.isFinite(number));
  if (wrong !== -1) {
    throw new Error(`expected numbers: ${featureNames(model)[wrong]} is `
      + `${JSON.stringify(row[wrong])}`);
  }
  return row;
}

// A number as it is shown and sent: no more digits than a hand on a map can mean.
export const rounded = value => Number(value.toPrecision(6));

// Samples of a seed: {x, log_prob}, without those that the model could not compute.
export async function drawRows(app, count, seed, signal) {
  const fields = { ...app.fields(), num_samples: count, seed };
  const drawn = await callJson("sample", fields, { shown: false, signal });
  const kept = drawn.x.map((row, index) => [row, drawn.log_prob[index]])
    .filter(([row, logProb]) => row !== null && logProb !== null);
  return { x: kept.map(([row]) => row), logProb: kept.map(([, logProb]) => logProb) };
}
