// The likelihood ledger: log p as the sum of what it is made of.

const sum = numbers => numbers.reduce((total, number) => total + number, 0);
const nested = value => Array.isArray(value) ? value.flat(Infinity) : [value];

// log |det| of one step of preprocessing for all rows alike; null where it differs from row to row.
const STEPS = {
  dequantise: () => 0,
  dequantise_columns: () => 0,
  reduce_bits: () => 0,
  shift_scale: ({ scale }, features) => features * Math.log(Math.abs(scale)),
  standardise: ({ std }, features) => -sum(nested(std).map(Math.log)) * features / nested(std).length,
};

/**
 * What preprocessing adds to log p of every row: {nats, rest}.
 *
 * rest: kinds of steps whose share differs from row to row, so that it is with the flow's.
 * Returns null where the configuration does not say how rows are preprocessed.
 */
export function preprocessing({ config, features }) {
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
export function entries(model, z, logDet, logProb) {
  const constant = -model.features / 2 * Math.log(2 * Math.PI);
  const distance = -sum(z.map(value => value * value)) / 2;
  const before = preprocessing(model)?.nats ?? 0;
  const total = constant + distance + logDet;
  return {
    constant, distance, preprocessing: before, flow: logDet - before, total, logProb,
    rounding: logProb - total, bits: -logProb / (model.features * Math.LN2),
  };
}
