// What GET /models/NAME says of how far a model can be trusted, in plain words: lines of tables.

import { short } from "../../page/numbers.js";

const rows = number => `${short(number)} ${number === 1 ? "row" : "rows"}`;
const unitOf = model => model.num_levels ? "levels" : "units of x";
const share = number => `${short(100 * number)} %`;

function likeTheData(accuracy) {
  const kinds = [["golden_rows", "golden"], ["held_out_rows", "held out"], ["sample_rows", "drawn"]];
  return kinds.filter(([name]) => accuracy[name] > 0)
    .map(([name, kind]) => `${short(accuracy[name])} ${kind}`).join(", ") + " rows";
}

// [what, promised, measured, on what rows], of what is stated.
export function accuracyLines({ accuracy, ...model }) {
  const promised = accuracy.log_prob_promised_relative_error;
  const relative = number => number === undefined ? "–" : `${short(number)} × max(1, |log p|)`;
  const golden = accuracy.golden_rows ? rows(accuracy.golden_rows) : "–";
  const lines = [
    ["log p, against float64", promised ? `at most ${relative(promised)}` : "not stated",
      relative(accuracy.log_prob_max_relative_error), likeTheData(accuracy)],
    ["the same, in nats", "–", short(accuracy.log_prob_max_abs_error), likeTheData(accuracy)],
    ["log p of rows unlike the data", "–", relative(accuracy.odd_log_prob_max_relative_error),
      accuracy.odd_rows ? rows(accuracy.odd_rows) : "–"],
    ["z", "–", short(accuracy.z_max_abs_error), `${golden}, golden`],
    [`x, encoded and decoded, in ${unitOf(model)}`, "–", short(accuracy.round_trip_max_abs_error),
      `${golden}, golden`],
    ["rows that lose their log p to rounding", "–", short(accuracy.non_finite_rows), "all of these"],
  ];
  return lines.filter(([, stated, measured]) => measured !== "–" || stated !== "–");
}

export const isKept = ({ accuracy }) => accuracy.log_prob_promised_relative_error === undefined
  || accuracy.log_prob_max_relative_error === undefined ? null
  : accuracy.log_prob_max_relative_error <= accuracy.log_prob_promised_relative_error;

// The golden rows, which a server replays whenever it loads a version.
export function replayText({ accuracy, version, engine }) {
  const count = accuracy.golden_rows;
  if (!count) {
    return "This model was saved without golden rows, so nothing was replayed when it was loaded. "
      + "Save it again with this version of pushforward.";
  }
  return `When the server loaded version ${version} it had the engine that serves (${engine}) answer `
    + `${rows(count)} whose answers were saved with the model. They agreed within what was `
    + "measured: a model that answers otherwise is not served. The server does not say when that "
    + "was: at its start, or when the version was put in place.";
}

const spread = found => found ? `median ${short(found.median)}, 99 % ${short(found.p99)}, `
  + `largest ${short(found.max)}` : "–";

export function certificateLines({ accuracy: { certificate } }) {
  if (!certificate) return null;
  const { tolerance, versions, graphs_sha256: graphs, rows: tried } = certificate;
  const inWords = name => Object.entries(tried?.[name] ?? {})
    .map(([kind, number]) => `${number} ${kind}`).join(", ");
  return [
    ["log p may differ by", `${short(tolerance?.log_prob)} × max(1, |log p|)`],
    ["log p differs by, in nats", spread(certificate.log_prob)],
    ["x of given z may differ by", `${short(tolerance?.x)} × max(1, |x|)`],
    ["x differs by", spread(certificate.x)],
    ["z differs by", spread(certificate.z)],
    ["tried on", `rows: ${inWords("data")}; latents: ${inWords("latents")}`],
    ["a row has the same bits in every batch", certificate.is_batch_invariant ? "yes" : "no"],
    ["made with", Object.entries(versions ?? {}).map(pair => pair.join(" ")).join(", ")],
    ...Object.entries(graphs ?? {}).map(([name, digest]) => [`SHA-256 of ${name}`, digest]),
  ];
}

export function thresholdLines({ calibration }) {
  return calibration.thresholds.map(({ alpha, threshold, fpr_upper95: bound, reason }) => [
    share(alpha), threshold === null ? reason ?? "none" : short(threshold),
    bound === null ? "–" : share(bound),
  ]);
}

export function calibrationLines({ calibration }) {
  return [
    ["id", calibration.id],
    ["rows", `${short(calibration.rows)} of ${calibration.dataset}`],
    ["score", `${calibration.statistic}${
      calibration.statistic === "neg_log_prob" ? ", that is -log p in nats" : ""}: higher is more anomalous`],
    ["smallest p-value", short(calibration.p_floor)],
    ["made", calibration.created],
  ];
}

// How well each score tells probes from rows like the data: 0.5 is chance, 1 always.
export function probeLines({ calibration }) {
  const known = calibration.anomalies
    ? [{ ...calibration.anomalies, what: `known anomalies of ${calibration.anomalies.dataset}` }] : [];
  return [...calibration.probes, ...known].flatMap(({ what, rows: count, statistics }) =>
    Object.entries(statistics).map(([name, { auroc, low, high }]) =>
      [what, name, `${short(auroc)} (${short(low)} to ${short(high)})`, short(count)]));
}

const asText = value => typeof value === "object" ? JSON.stringify(value)
  : typeof value === "number" ? short(value) : String(value);

const NAMED = {
  licence: "licence of the data",
  source: "source of the data",
  trained_on: "trained on",
  data_sha256: "SHA-256 of the data",
  test_nats: "mean -log p of test rows, nats",
  test_bits_per_dim: "the same, bits a dimension",
  test_auroc: "AUROC against known anomalies",
};

export function provenanceLines({ provenance }) {
  const first = Object.keys(NAMED);
  const rank = name => first.includes(name) ? first.indexOf(name) : first.length;
  const { licence = "not stated: it belongs into provenance in config.json" } = provenance;
  return Object.entries({ ...provenance, licence })
    .filter(([name, value]) => name !== "columns" && value !== null)
    .sort(([a], [b]) => rank(a) - rank(b))
    .map(([name, value]) => [NAMED[name] ?? name, asText(value)]);
}

// Below this a score is said to tell too little.
const GOOD_AUROC = 0.9;

// [whether it is good, what]: the probe that the score in use tells least from rows like the data.
function weakestProbe({ calibration }) {
  const known = calibration.anomalies
    ? [{ ...calibration.anomalies, what: "known anomalies" }] : [];
  const [weakest] = [...calibration.probes, ...known]
    .map(({ what, statistics }) => ({ what, auroc: statistics[calibration.statistic]?.auroc }))
    .filter(({ auroc }) => auroc !== undefined).sort((a, b) => a.auroc - b.auroc);
  if (weakest === undefined) return [null, "What it tells from rows like the data was not tried"];
  const { what, auroc } = weakest;
  return [auroc >= GOOD_AUROC ? true : "weak",
    `Of the probes it tells ${what} least from rows like the data: AUROC ${short(auroc)} (1 is always, `
    + "0.5 is chance)"];
}

function replayVerdict({ accuracy: { golden_rows: count } }) {
  return count ? [true, `Replayed when it was loaded: ${rows(count)} saved with the model, answered as before`]
    : [null, "Nothing was replayed when it was loaded: it was saved without golden rows"];
}

// Whether the density can be trusted, at a glance: [is it so (null: not known, "weak"), what].
export function verdicts(model) {
  const { accuracy, calibration } = model;
  const kept = isKept(model);
  const measured = short(accuracy.log_prob_max_relative_error);
  return [
    kept === null ? [null, "How exact log p is was not measured on rows like the data: save the model again"]
      : [kept, `log p is ${kept ? "as exact as promised" : "less exact than promised"}: within ${measured} × `
        + `max(1, |log p|) on ${likeTheData(accuracy)}`],
    accuracy.certificate ? [true, "The graphs that serve are certified against float64"]
      : [null, `No certificate: ${model.engine} serves, and pushforward export FOLDER --in-place makes one`],
    replayVerdict(model),
    calibration ? [calibration.warnings.length === 0, `Calibrated on ${rows(calibration.rows)}`
      + `${calibration.warnings.length ? `, with warnings: ${calibration.warnings.join("; ")}` : ""}`]
      : [null, "Not calibrated, so there are no p-values: pushforward calibrate FOLDER --data ROWS.csv"],
    ...calibration ? [weakestProbe(model)] : [],
  ];
}
