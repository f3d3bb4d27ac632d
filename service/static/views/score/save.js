// The rows with their scores, as a CSV file.

import { byId } from "../../page/dom.js";
import { download } from "../../page/download.js";
import { ask } from "./files.js";
import { explainRows } from "./scoring.js";

// Of so many flagged rows the reasons are asked for; each costs 16 rows a feature.
const MOST_EXPLAINED = 2000;
const AT_ONCE = 50;

async function reasonsOf(batch, table, flagged) {
  const found = new Map();
  const wanted = [];
  for (const row of flagged.slice(0, MOST_EXPLAINED)) {
    if (batch.scores.reasons.has(row)) continue;
    if (table.told(row)) found.set(row, table.told(row));
    else wanted.push(row);
  }
  for (let first = 0; first < wanted.length; first += AT_ONCE) {
    byId("score-saved").textContent = `explaining row ${first} of ${wanted.length} …`;
    const rows = wanted.slice(first, first + AT_ONCE);
    const told = await explainRows(batch.fields, batch.rows, rows, batch.signal);
    rows.forEach((row, index) => found.set(row, told[index]));
  }
  return found;
}

// Numbers, truths, and text by row, as few as there are: a worker gets a copy.
function columnsOf(batch, reasons) {
  const { scores, count, q } = batch;
  const hasP = batch.model.calibration !== null;
  const texts = Array.from(reasons ?? [], ([row, told]) => [row, JSON.stringify(told)]);
  return {
    score: scores.score,
    log_prob: scores.log_prob,
    ...hasP ? { p_value: scores.p_value } : {},
    ...hasP && q ? { q_value: q } : {},
    ...hasP ? { is_anomaly: Uint8Array.from({ length: count }, (_, row) => batch.isFlagged(row)) } : {},
    ...reasons ? { explanation: new Map(texts) } : {},
    status: scores.reasons,
  };
}

// Save what is shown: the numbers are those that the API gave.
export async function save(batch, table) {
  const flagged = Array.from(table.order).filter(row => batch.isFlagged(row));
  const reasons = batch.canExplain ? await reasonsOf(batch, table, flagged) : null;
  batch.signal.throwIfAborted(); // what the worker holds is of other rows
  const blob = await ask("save", { count: batch.count, columns: columnsOf(batch, reasons) });
  download(blob, `${batch.model.name}-scores.csv`);
  const left = reasons ? flagged.length - MOST_EXPLAINED : 0;
  byId("score-saved").textContent = `${batch.count.toLocaleString("en")} rows saved`
    + `${left > 0 ? `; explained are the ${MOST_EXPLAINED} rows with the least p` : ""}`;
}
