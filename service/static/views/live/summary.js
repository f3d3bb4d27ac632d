// From the samples of /metrics to what is shown of each model, and from two of those to rates.

import { quantileOf } from "../../page/metrics.js";

// ln(1/0.01): as long as rows are like those of calibration, one window in a hundred exceeds it.
export const DRIFT_LIMIT = Math.log(100);

const nothing = () => ({
  rows: 0, batches: 0, requests: 0, refused: 0, tested: 0, waiting: 0, fullBatch: 0,
  drift: null, driftMax: null, crossings: 0, codes: new Map(), buckets: new Map(),
});
const COUNTERS = ["rows", "batches", "requests", "refused", "tested", "crossings"];
const TABLES = ["codes", "buckets"];

const add = (table, key, value) => table.set(key, (table.get(key) ?? 0) + value);

// By name of the metric: what a sample of it adds to the facts of its model.
const READERS = {
  pushforward_rows_total: (facts, { value }) => { facts.rows += value; },
  pushforward_batches_total: (facts, { value }) => { facts.batches += value; },
  pushforward_queue_rows: (facts, { value }) => { facts.waiting += value; },
  pushforward_max_batch_rows(facts, { value }) {
    facts.fullBatch = Math.max(facts.fullBatch, value);
  },
  pushforward_dropped_total(facts, { labels, value }) {
    if (labels.reason === "overloaded") facts.refused += value;
  },
  pushforward_requests_total(facts, { labels, value }) {
    facts.requests += value;
    add(facts.codes, labels.code, value);
  },
  pushforward_request_duration_seconds_bucket(facts, { labels, value }) {
    add(facts.buckets, labels.le === "+Inf" ? Infinity : Number(labels.le), value);
  },
  pushforward_drift_log_martingale(facts, { value }) {
    facts.drift = Math.max(facts.drift ?? -Infinity, value);
  },
  pushforward_drift_log_martingale_max(facts, { value }) {
    facts.driftMax = Math.max(facts.driftMax ?? -Infinity, value);
  },
  pushforward_drift_crossings_total: (facts, { value }) => { facts.crossings += value; },
  pushforward_score_p_value_count: (facts, { value }) => { facts.tested += value; },
};

// What the samples say, by model; "" has the requests that named none. Requests of pages, metrics
// and health, this page's own among them, are those whose operation is a path: they are left out.
export function summarise(samples) {
  const models = new Map();
  for (const [name, read] of Object.entries(READERS)) {
    for (const sample of samples.get(name) ?? []) {
      const { model = "", op = "" } = sample.labels;
      if (op.startsWith("/")) continue;
      if (!models.has(model)) models.set(model, nothing());
      read(models.get(model), sample);
    }
  }
  return models;
}

// An alarm holds until the window after has ended: the martingale begins anew with each.
export const isAlarmed = ({ drift, driftMax }) => Math.max(drift, driftMax) > DRIFT_LIMIT;

// Several models as one: what counts adds up, of the drift the largest is shown.
export function together(models) {
  const sum = nothing();
  for (const facts of models) {
    for (const name of [...COUNTERS, "waiting"]) sum[name] += facts[name];
    for (const name of TABLES) facts[name].forEach((value, key) => add(sum[name], key, value));
    sum.fullBatch = Math.max(sum.fullBatch, facts.fullBatch);
    for (const name of ["drift", "driftMax"]) {
      if (facts[name] !== null) sum[name] = Math.max(sum[name] ?? -Infinity, facts[name]);
    }
  }
  return sum;
}

// A counter that fell began anew: its server was started again.
const grown = (before, after) => after >= before ? after - before : after;

// What was counted from one summary of a model to a later one; what is no counter, as it is later.
export function between(before, after) {
  const change = { ...after };
  for (const name of COUNTERS) change[name] = grown(before?.[name] ?? 0, after[name]);
  for (const name of TABLES) {
    change[name] = new Map([...after[name]].map(([key, value]) =>
      [key, grown(before?.[name].get(key) ?? 0, value)]));
  }
  return change;
}

// Milliseconds within which a share of the requests was answered; null where there were none.
export function latency(facts, share) {
  const seconds = quantileOf(share, [...facts.buckets]);
  return Number.isNaN(seconds) ? null : 1000 * seconds;
}

export const batchRows = facts => facts.batches ? facts.rows / facts.batches : null;
// What a client gave up itself is no error of anybody.
export const errors = facts => [...facts.codes]
  .filter(([code]) => Number(code) >= 400 && code !== "499")
  .reduce((sum, [, count]) => sum + count, 0);
