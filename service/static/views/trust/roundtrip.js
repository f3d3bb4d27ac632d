// Encode and decode: what a row loses on the way there and back.

import { callRows } from "../../page/api.js";
import { parseJson } from "../../page/json.js";
import { median } from "../../page/numbers.js";
import { arrayOf } from "../../page/shapes.js";

export const zeroRows = model =>
  ({ data: new (arrayOf(model))(model.features), shape: [1, ...model.event_shape] });

// Rows that a user wrote as JSON: one, or several.
export function readRows(text, model) {
  const first = Array.from({ length: Math.min(model.features, 3) }, (_, index) => index);
  const example = `[${first.join(", ")}${model.features > 3 ? ", …" : ""}]`;
  const given = [parseJson(text, example)].flat(); // a list of numbers alone is one row, or several
  const numbers = given.flat(Infinity);
  const wrong = numbers.find(number => typeof number !== "number");
  if (wrong !== undefined) throw new Error(`expected numbers, got ${JSON.stringify(wrong)}`);
  if (numbers.length === 0 || numbers.length % model.features) {
    throw new Error(`expected rows of ${model.features} numbers, such as ${example}, `
      + `got ${numbers.length} numbers in all`);
  }
  // Of several rows in lists of their own each has to be whole.
  const lengths = given.map(row => [row].flat(Infinity).length);
  const isRows = Array.isArray(given[0]) && numbers.length > model.features;
  const other = isRows ? lengths.findIndex(length => length !== model.features) : -1;
  if (other !== -1) {
    throw new Error(`expected rows of ${model.features} numbers, row ${other} has ${lengths[other]}`);
  }
  return {
    data: arrayOf(model).from(numbers),
    shape: [numbers.length / model.features, ...model.event_shape],
  };
}

/**
 * Encode rows, decode what comes: {x, z, back, errors, largest, median, exact, worst, lost}.
 *
 * errors: |decoded - x| of every number; NaN in rows without numbers, of which `lost` are.
 * worst: the index of the number with the largest error.
 * exact: share of the numbers that came back with the same bits.
 */
export async function roundTrip(fields, x, options) {
  const z = await callRows("encode", fields, x, options);
  const back = await callRows("decode", fields, z, options);
  const errors = Float64Array.from(x.data, (value, index) => Math.abs(back.data[index] - value));
  const known = errors.filter(error => !Number.isNaN(error));
  const worst = errors.reduce((best, error, index) =>
    error > (errors[best] ?? -1) || Number.isNaN(errors[best]) ? index : best, 0);
  return {
    x, z, back, errors, worst, largest: errors[worst], median: median(known),
    exact: known.filter(error => error === 0).length / known.length,
    lost: Math.round((errors.length - known.length) / (errors.length / x.shape[0])),
  };
}

// How many errors lie between powers of ten: {low, counts}, of 10^low and each power after it.
export function decades(errors) {
  const powers = [...errors].filter(error => error > 0).map(error => Math.floor(Math.log10(error)));
  if (powers.length === 0) return { low: 0, counts: [] };
  const low = Math.min(...powers);
  const counts = Array(Math.max(...powers) - low + 1).fill(0);
  for (const power of powers) counts[power - low] += 1;
  return { low, counts };
}
