// What GET /metrics answers: Prometheus' text format 0.0.4, and its histograms.
// Reference: prometheus.io/docs/instrumenting/exposition_formats, and histogram_quantile in
// prometheus.io/docs/prometheus/latest/querying/functions.

const SAMPLE = /^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\s*\{(.*)\})?\s+(\S+)(?:\s+-?\d+)?$/;
const LABEL = /\s*([a-zA-Z_][a-zA-Z0-9_]*)\s*=\s*"((?:[^"\\]|\\.)*)"\s*(?:,|$)/gy;
const ESCAPED = { n: "\n", '"': '"', "\\": "\\" };
const NUMBERS = { "+Inf": Infinity, "-Inf": -Infinity, NaN };

function labelsOf(text) {
  const labels = {};
  LABEL.lastIndex = 0;
  for (let found; LABEL.lastIndex < text.length && (found = LABEL.exec(text));) {
    labels[found[1]] = found[2].replace(/\\(.)/g, (whole, letter) => ESCAPED[letter] ?? whole);
  }
  return labels;
}

// The samples in a text, by name: [{labels, value}].
export function parseMetrics(text) {
  const found = new Map();
  for (const line of text.split("\n")) {
    if (line.startsWith("#")) continue;
    const parts = SAMPLE.exec(line.trim());
    if (!parts) continue;
    const [, name, labels, value] = parts;
    if (!found.has(name)) found.set(name, []);
    found.get(name).push({
      labels: labels ? labelsOf(labels) : {}, value: NUMBERS[value] ?? Number(value),
    });
  }
  return found;
}

/**
 * A quantile of a histogram, as histogram_quantile has it: linear within a bucket.
 *
 * buckets: [upper bound, how many are at most that], in any order, with one of Infinity.
 * Returns NaN of no observations; of those beyond the last bound, that bound.
 */
export function quantileOf(share, buckets) {
  const sorted = [...buckets].sort(([a], [b]) => a - b);
  const total = sorted.at(-1)?.[1];
  if (!(total > 0) || sorted.at(-1)[0] !== Infinity || sorted.length < 2) return NaN;
  const rank = share * total;
  const at = sorted.findIndex(([, count]) => count >= rank);
  if (at === sorted.length - 1) return sorted.at(-2)[0];
  const [bound, count] = sorted[at];
  if (at === 0 && bound <= 0) return bound;
  const [below, before] = at === 0 ? [0, 0] : sorted[at - 1];
  return below + (bound - below) * (rank - before) / (count - before);
}
