// A point, its latent, and what its log p is made of.

import { callJson } from "../../page/api.js";

const PROMISED = 1e-3; // relative to log p, of a model that states nothing
const HALF_LOG_2_PI = 0.5 * Math.log(2 * Math.PI);

// The log-density of a standard normal at z, in nats.
export const normal = z => z.reduce((sum, value) => sum - value * value / 2 - HALF_LOG_2_PI, 0);

const numberOf = (answer, name) => {
  if (answer[name][0] !== null) return answer[name][0];
  return answer.failures?.[0]?.status === "outside_support" ? -Infinity : NaN;
};

/**
 * What the server says of a row: {x, z, logDet, logProb, base, off}.
 *
 * z is null where it has none. base is the log-density of a standard normal at z. off is by how much
 * base and log-det are not log p, or 0 where that is within the error that the model promises.
 */
export async function lookUp(app, x, signal) {
  const fields = { ...app.fields(), x: [x] };
  const [encoded, scored] = await Promise.all([
    callJson("encode", fields, { shown: false, signal }),
    callJson("log_prob", fields, { signal }),
  ]);
  const [logDet, logProb] = [numberOf(encoded, "log_det"), numberOf(scored, "log_prob")];
  const z = encoded.z[0];
  const base = z ? normal(z) : NaN;
  const off = Math.abs(base + logDet - logProb);
  const promised = app.model.accuracy?.log_prob_promised_relative_error ?? PROMISED;
  const most = promised * Math.max(1, ...[base, logDet, logProb].map(Math.abs));
  return { x, z, logDet, logProb, base, off: off > most ? off : 0 };
}

// The row of a latent, or null where there is none.
export async function decode(app, z, signal) {
  const fields = { ...app.fields(), z: [z] };
  return (await callJson("decode", fields, { shown: false, signal })).x[0];
}

// Three numbers as text that add up to the last digit: the first two are rounded, and the third
// is their sum.
export function addUp(logProb, logDet) {
  const greatest = Math.max(Math.abs(logProb), Math.abs(logDet), 1);
  if (!(greatest < 1e12)) return null;
  const digits = Math.max(0, 4 - Math.max(0, Math.floor(Math.log10(greatest)) - 2));
  const [sum, part] = [logProb, logDet].map(value => Math.round(value * 10 ** digits));
  return [sum - part, part, sum].map(value => (value / 10 ** digits).toFixed(digits));
}

/**
 * An action that is asked for faster than it is done: one at a time, and after each the last that
 * was asked for meanwhile. So what was asked last is what is answered last.
 */
export function latest(action) {
  let wanted = null;
  let isBusy = false;
  return async (...given) => {
    wanted = given;
    if (isBusy) return;
    isBusy = true;
    try {
      while (wanted) {
        const now = wanted;
        wanted = null;
        try {
          await action(...now);
        } catch (error) {
          if (!wanted) throw error; // else what came of it is of no interest any more
        }
      }
    } finally {
      isBusy = false;
    }
  };
}
