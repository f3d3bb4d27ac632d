// Scores of rows, asked for in pieces, and what they mean at a rate of false alarms.

import { callJson } from "../../page/api.js";

// A piece is to take about so long: progress is seen, and giving up helps.
const PIECE_MS = 400;
const FIRST_ROWS = 1024;
const MOST_ROWS = 8192;
const MOST_TRIES = 6;

const pause = ms => new Promise(resolve => setTimeout(resolve, ms));

// Ask again where the server is full.
async function patiently(ask) {
  for (let tried = 1; ; tried++) {
    try {
      return await ask();
    } catch (error) {
      if (error.status !== 429 || tried === MOST_TRIES) throw error;
      await pause(250 * 2 ** tried);
    }
  }
}

export const emptyScores = count => ({
  score: new Float64Array(count).fill(NaN),
  log_prob: new Float64Array(count).fill(NaN),
  p_value: new Float64Array(count).fill(NaN),
  reasons: new Map(), // of rows without numbers, by row
  done: 0,
});

const worded = ({ status, reason }) => `${status}: ${reason}`.replace(/_/g, " ");

// Take an answer of POST /score for the rows from `first` on.
export function take(scores, answer, first) {
  for (const name of ["score", "log_prob", "p_value"]) {
    answer[name]?.forEach((value, index) => { scores[name][first + index] = value ?? NaN; });
  }
  for (const failure of answer.failures ?? []) {
    const row = first + failure.row;
    if (!scores.reasons.has(row)) scores.reasons.set(row, worded(failure));
  }
  scores.done = first + answer.score.length;
}

// Rows that were scored before: they are not to count twice in what the server tells of drift.
export const AGAIN = { observe: false };

/**
 * Score rows {data, shape} into `scores`; onPiece is called after each piece of them.
 *
 * fields: of the requests, which say the model and the class; the same for all pieces.
 */
export async function scoreRows(fields, rows, scores, { signal, onPiece }) {
  const [count, ...event] = rows.shape;
  const size = event.reduce((product, length) => product * length, 1);
  let length = FIRST_ROWS;
  for (let first = 0; first < count;) {
    const now = Math.min(length, count - first);
    const data = rows.data.subarray(first * size, (first + now) * size);
    const started = performance.now();
    try {
      const options = { rows: { data, shape: [now, ...event] }, signal };
      const asked = { ...fields, invalid: "null" };
      take(scores, await patiently(() => callJson("score", asked, options)), first);
    } catch (error) {
      if (error.status !== 413 || now === 1) throw error;
      length = Math.ceil(now / 2);
      continue;
    }
    first += now;
    const fitting = now * PIECE_MS / (performance.now() - started);
    length = Math.max(64, Math.min(MOST_ROWS, Math.round(fitting), 2 * length));
    onPiece(first);
  }
}

// Score pictures, each as it is: the server decodes them as it does for others.
export async function scorePictures(fields, files, scores, { signal, onPiece }) {
  for (const [index, file] of files.entries()) {
    const type = /png$/i.test(file.type || file.name) ? "image/png" : "image/jpeg";
    const body = { bytes: file, type };
    try {
      take(scores, await patiently(() => callJson("score", fields, { body, signal })), index);
    } catch (error) {
      if (![400, 413, 415, 422].includes(error.status)) throw error;
      scores.reasons.set(index, error.message);
      scores.done = index + 1;
    }
    onPiece(index + 1);
  }
}

/**
 * Why rows score as they do: what /score answers with explain, one list of features a row.
 *
 * rows: {data, shape}. wanted: their indices.
 */
export async function explainRows(fields, rows, wanted, signal) {
  const size = rows.shape[1];
  const found = [];
  for (let length = wanted.length, first = 0; first < wanted.length;) {
    const now = wanted.slice(first, first + length);
    const data = new Float64Array(now.length * size);
    now.forEach((row, at) => data.set(rows.data.subarray(row * size, (row + 1) * size), at * size));
    const asked = { ...fields, ...AGAIN, invalid: "null", explain: size };
    try {
      const options = { rows: { data, shape: [now.length, size] }, signal };
      const answer = await patiently(() => callJson("score", asked, options));
      found.push(...answer.explanation);
      first += now.length;
    } catch (error) {
      if (error.status !== 413 || now.length === 1) throw error;
      length = Math.ceil(now.length / 2);
    }
  }
  return found;
}

// The q-values of Benjamini and Hochberg: as `fdr` of a request that holds all rows.
export function qValues(p, order) {
  const counted = Array.from(order).filter(row => !Number.isNaN(p[row]));
  const q = new Float64Array(p.length).fill(NaN);
  let least = Infinity;
  for (let rank = counted.length; rank >= 1; rank--) {
    const row = counted[rank - 1];
    least = Math.min(least, p[row] * (counted.length / rank));
    q[row] = least;
  }
  return q;
}
