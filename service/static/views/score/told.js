// What is told of a batch, in words and as a histogram.

import { byId } from "../../page/dom.js";
import { FileProblem } from "./limits.js";
import { isFdr, rate } from "./rate.js";

// Of the rows; of rows like those of the calibration about 2 in 1,000 lie below its histogram.
const MANY_BELOW = 0.05;

const percent = share => `${Number((100 * share).toPrecision(3))} %`;

const classOf = ({ fields: { context }, model: { class_names: names, num_classes } }) =>
  num_classes === null ? ""
    : `Scored as class ${names?.[context] ?? context}; choose another above. `;

function promise({ model, calibration }) {
  if (!model.calibration) {
    return `${model.name} is not calibrated: scores are -log_prob, and no row is flagged. `
      + `For p-values: pushforward calibrate ${model.name} --data HELD-OUT, with rows that it `
      + "never saw.";
  }
  if (isFdr()) return `Of the flagged rows about ${percent(rate())} are false alarms.`;
  return `Of rows like the ${calibration.rows.toLocaleString("en")} calibration rows `
    + `(${calibration.dataset}) ${percent(rate())} are flagged falsely, and with 95 % confidence `
    + `fewer than ${percent(calibration.fpr_upper95)}.`;
}

export function tell(batch) {
  const { count, model, scores } = batch;
  let flagged = 0;
  for (let row = 0; row < count; row++) flagged += batch.isFlagged(row);
  const failed = scores.reasons.size;
  byId("score-told").textContent = `${model.calibration
    ? `${flagged.toLocaleString("en")} of ${count.toLocaleString("en")} rows flagged `
      + `(${percent(flagged / count)})` : `${count.toLocaleString("en")} rows scored`}`
    + `${failed ? `; ${failed} without a number` : ""}`;
  byId("score-bound").textContent = classOf(batch) + promise(batch);
}

// What is wrong with rows that have no numbers, or null.
export function faultsOf(batch) {
  const { reasons } = batch.scores;
  if (reasons.size === 0) return null;
  const [[row, reason]] = reasons;
  const place = batch.names?.[row] ?? batch.nameOf(row);
  const others = reasons.size > 1 ? `; ${reasons.size - 1} more` : "";
  return new FileProblem(
    `${reasons.size} of ${batch.count} have no score: ${place}: ${reason}${others}`);
}

function legend({ scores: { score: values }, calibration }, { limit, beyond }) {
  const lowest = calibration?.histogram?.edges[0] ?? -Infinity;
  const below = values.filter(value => value < lowest).length;
  return [
    "Blue: your rows.", ...calibration ? ["Grey: the calibration rows."] : [],
    ...limit === null ? [] : [`Orange: the threshold, ${Number(limit.toPrecision(4))}; rows to the right `
      + "of it are flagged, each with a red mark below."],
    ...beyond ? [`The last bar holds all that score higher still: ${beyond}.`] : [],
    ...below > MANY_BELOW * values.length ? [`Lower than nearly every calibration row: ${below}; the `
      + "model finds these likelier than its data, as it often does simple pictures, and never flags "
      + "them."] : [],
    "Higher is odder.",
  ].join(" ");
}

function limitOf({ model, calibration }, flagged) {
  if (!model.calibration) return null;
  if (!isFdr()) return calibration.threshold;
  return flagged.length ? flagged.reduce((least, value) => Math.min(least, value)) : null;
}

// Draw what is scored so far.
export function plot(batch, histogram) {
  const { calibration, scores } = batch;
  const values = scores.score;
  if (!values.some(Number.isFinite)) return histogram.clear();
  const flagged = Array.from(values).filter((value, row) =>
    Number.isFinite(value) && batch.isFlagged(row));
  const limit = limitOf(batch, flagged);
  const { statistic } = calibration ?? { statistic: "neg_log_prob" };
  const what = statistic === "neg_log_prob" ? "score: -log p, in nats" : `score: ${statistic}`;
  const beyond = histogram.draw({ histogram: calibration?.histogram ?? null, values, flagged,
    threshold: limit, label: what });
  byId("score-plot").setAttribute("aria-label", `Histogram of ${scores.done} scores`
    + `${calibration ? ` over ${calibration.rows} of calibration` : ""}`
    + `${limit === null ? "" : `; threshold ${limit.toPrecision(4)}`}`);
  byId("score-legend").textContent = legend(batch, { limit, beyond });
}
