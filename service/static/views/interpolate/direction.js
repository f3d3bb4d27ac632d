// What is the same in all rows of a class, in z: the difference of the means of two classes.

import { drawRows } from "../../page/api.js";
import { hasPixels, toLevels } from "../../page/pictures.js";
import { through } from "./decoding.js";
import { unstack } from "./path.js";

export const ROWS = 64; // of each class
const SEED = 0;

async function drawClass(app, label, signal) {
  const fields = { model: app.model.name, context: label, num_samples: ROWS, seed: SEED };
  const rows = unstack(await drawRows(fields, { shown: false, signal }));
  return hasPixels(app.model) ? rows.map(row => toLevels(row, app.model)) : rows;
}

/**
 * The direction from one class to another: {step, norm, chance, pairs}.
 *
 * Both classes are drawn from the same noise, so that their rows are pairs, and all are encoded
 * under one context: each under its own would be that noise again. step is the mean of the pairs'
 * differences; chance is how long it would be, about, were there nothing but scatter.
 */
export async function directionBetween(app, from, to, signal) {
  const drawn = await Promise.all([from, to].map(label => drawClass(app, label, signal)));
  const latents = await through("encode", app, drawn.flat(), { signal });
  const pairs = drawn[0].map((_, index) => [latents[index], latents[ROWS + index]])
    .filter(pair => pair.flatMap(z => [...z]).every(Number.isFinite));
  if (pairs.length < 2) {
    throw new Error("too few rows of these classes have a latent in the context of this one");
  }
  const step = new Float64Array(app.model.features);
  let scatter = 0;
  for (let at = 0; at < step.length; at++) {
    const differences = pairs.map(([a, b]) => b[at] - a[at]);
    step[at] = differences.reduce((sum, value) => sum + value, 0) / pairs.length;
    scatter += differences.reduce((sum, value) => sum + (value - step[at]) ** 2, 0)
      / (pairs.length - 1) / pairs.length;
  }
  const norm = Math.sqrt(step.reduce((sum, value) => sum + value ** 2, 0));
  return { step, norm, chance: Math.sqrt(scatter), pairs: pairs.length };
}
