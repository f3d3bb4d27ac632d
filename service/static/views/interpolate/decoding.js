// Ends as latents, and the rows along the path between them, each asked for once.

import { callRows } from "../../page/api.js";
import { arrayOf } from "../../page/shapes.js";
import { pathBetween, stack, unstack } from "./path.js";

// Rows, flat, through an operation: the rows of its first output.
export async function through(operation, app, rows, options = {}) {
  const { model } = app;
  const shape = operation === "decode" ? [model.features] : model.event_shape;
  const { context, ...rest } = options;
  const fields = { ...app.fields(), ...context === undefined ? {} : { context } };
  return unstack(await callRows(operation, fields, stack(rows, arrayOf(model), shape),
    { shown: false, ...rest }));
}

// log p of rows, in nats.
export const densities = async (app, rows, options) =>
  (await through("log_prob", app, rows, options)).map(([value]) => value);

// The rows between two, in x itself: x(t) = (1 - t) A + t B.
export const straight = (from, to, places) => places.map(t =>
  Float64Array.from(from, (value, index) => value + t * (to[index] - value)));

// N places, from 0 to 1.
export const spread = count => Array.from({ length: count }, (_, index) => index / (count - 1));

/**
 * The decoded path between two rows: {path, rows, logProbs, nearest, roundTrip}.
 *
 * rows(places, options) decodes those that were not yet asked for; logProbs likewise; nearest(t) is
 * the place nearest to t of those that are there; roundTrip() is by how much both ends come back
 * otherwise, at most.
 *
 * Raises an Error with the `end` (0 or 1) that has no latent.
 */
export async function decodedPath(app, ends, signal) {
  const latents = await through("encode", app, ends, { signal });
  latents.forEach((z, end) => {
    if (!z.every(Number.isFinite)) {
      throw Object.assign(new Error("the model has no latent for this row, it lies outside of what "
        + "the model can make: take another"), { end });
    }
  });
  const path = pathBetween(...latents);
  const [rowAt, densityAt] = [new Map(), new Map()];
  const fill = async (known, places, ask) => {
    const missing = [...new Set(places)].filter(t => !known.has(t));
    const answers = missing.length ? await ask(missing) : [];
    answers.forEach((value, index) => known.set(missing[index], value));
    return places.map(t => known.get(t));
  };
  const rows = (places, options) => fill(rowAt, places, missing =>
    through("decode", app, missing.map(path.at), options));
  return {
    path,
    rows,
    logProbs: (places, options) => fill(densityAt, places, async missing =>
      densities(app, await rows(missing, options), options)),
    nearest: t => [...rowAt.keys()].reduce((best, place) =>
      Math.abs(place - t) < Math.abs(best - t) ? place : best),
    sorted: () => [...rowAt.keys()].sort((one, other) => one - other).map(t => rowAt.get(t)),
    known: t => ({ row: rowAt.get(t), logProb: densityAt.get(t) }),
    roundTrip: () => ends.map((end, index) => rowAt.get(index).reduce((largest, value, at) =>
      Math.max(largest, Math.abs(value - end[at])), 0)),
  };
}
