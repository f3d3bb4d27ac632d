// The likelihood ledger: log p as the sum of what it is made of.

import { callJson } from "../../page/api.js";
import { byId } from "../../page/dom.js";
import { short } from "../../page/numbers.js";
import { fillTable } from "../../page/table.js";

const MAX_ROWS = 8;

const sum = numbers => numbers.reduce((total, number) => total + number, 0);

// log |det| of one step of preprocessing for all rows alike; null where it differs from row to row.
const STEPS = {
  dequantise: () => 0,
  dequantise_columns: () => 0,
  reduce_bits: () => 0,
  shift_scale: ({ scale }, features) => features * Math.log(Math.abs(scale)),
  standardise: ({ std }, features) => -sum(std.map(Math.log)) * features / std.length,
};

/**
 * What preprocessing adds to log p of every row: {nats, rest}.
 *
 * rest: kinds of steps whose share differs from row to row, so that it is with the flow's.
 * Returns null where the configuration does not say how rows are preprocessed.
 */
function preprocessing({ config, features }) {
  if (!Array.isArray(config?.preprocessing)) return null;
  const same = config.preprocessing.filter(({ kind }) => kind in STEPS);
  return {
    nats: sum(same.map(step => STEPS[step.kind](step, features))),
    rest: config.preprocessing.filter(({ kind }) => !(kind in STEPS)).map(({ kind }) => kind),
  };
}

/**
 * The entries of one row: they add up to log p, but for rounding.
 *
 * z: its latent. logDet: log |det| of encode. logProb: what POST /log_prob says of it.
 */
function entries(model, z, logDet, logProb) {
  const constant = -model.features / 2 * Math.log(2 * Math.PI);
  const distance = -sum(z.map(value => value * value)) / 2;
  const before = preprocessing(model)?.nats ?? 0;
  const total = constant + distance + logDet;
  return {
    constant, distance, preprocessing: before, flow: logDet - before, total, logProb,
    rounding: logProb - total, bits: -logProb / (model.features * Math.LN2),
  };
}

// Rows in one array as JSON has them.
const nested = (data, [length, ...inner]) => inner.length === 0 ? [...data]
  : Array.from({ length }, (_, index) => {
    const size = data.length / length;
    return nested(data.subarray(index * size, (index + 1) * size), inner);
  });

const LEDGER = [
  ["-D/2 ln 2π", "constant"], ["-|z|²/2", "distance"], ["preprocessing", "preprocessing"],
  ["flow", "flow"], ["sum", "total"], ["log p", "logProb"], ["bits/dim", "bits"],
];

function ledgerWords(model, rounding) {
  const before = preprocessing(model);
  const rest = before?.rest.length ? ` (${before.rest.join(", ")} differ from row to row and stand `
    + "with the flow)" : "";
  return "log p = base + log-det, in nats. The base is the normal density of z: -D/2 ln 2π - |z|²/2. "
    + `The log-det is how much the flow stretches space, of which preprocessing${
      before ? rest : ", which the server does not describe,"} adds the same to every row. The sum `
    + `differs from what POST /log_prob says by ${short(rounding)} nats at most, which is rounding.`;
}

// Fill the table with the first of these rows.
export async function drawLedger(app, rows, signal) {
  const { model } = app;
  const [count, ...event] = rows.shape;
  const length = Math.min(count, MAX_ROWS);
  const x = nested(rows.data.subarray(0, length * model.features), [length, ...event]);
  const fields = { ...app.fields(), x, invalid: "null" };
  const [encoded, scored] = await Promise.all(["encode", "log_prob"].map(operation =>
    callJson(operation, fields, { signal, shown: false })));
  const known = scored.log_prob.map((logProb, index) => logProb !== null && encoded.z[index] !== null
    && [index, entries(model, encoded.z[index], encoded.log_det[index], logProb)]).filter(Boolean);
  if (known.length === 0) {
    byId("ledger-words").textContent = "None of these rows has a density: nothing adds up to it.";
    return fillTable(byId("ledger"), [], []);
  }
  const largest = Math.max(...known.map(([, { rounding }]) => Math.abs(rounding)));
  byId("ledger-words").textContent = ledgerWords(model, largest);
  const exact = number => number.toFixed(model.features > 64 ? 2 : 4);
  return fillTable(byId("ledger"), ["row", ...LEDGER.map(([title]) => title)], known.map(([index, found]) =>
    [String(index), ...LEDGER.map(([, name]) => exact(found[name]))]));
}
