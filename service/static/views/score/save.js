// The rows with their scores, as a CSV file.

import { byId, element } from "../../page/dom.js";
import { ask } from "./files.js";
import { explainRows } from "./scoring.js";

// Of so many flagged rows the reasons are asked for; each costs 16 rows a feature.
const MOST_EXPLAINED = 2000;
const AT_ONCE = 50;

async function reasonsOf(app, { batch, table }, flagged) {
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
    const told = await explainRows(app, batch.rows, rows);
    rows.forEach((row, index) => found.set(row, told[index]));
  }
  return found;
}

// Numbers, truths, and text by row, as few as there are: a worker gets a copy.
function columnsOf({ scores, count, q, isFlagged }, { hasP, isFdr, reasons }) {
  const texts = Array.from(reasons ?? [], ([row, told]) => [row, JSON.stringify(told)]);
  return {
    score: scores.score,
    log_prob: scores.log_prob,
    ...hasP ? { p_value: scores.p_value } : {},
    ...hasP && isFdr ? { q_value: q } : {},
    ...hasP ? { is_anomaly: Uint8Array.from({ length: count }, (_, row) => isFlagged(row)) } : {},
    ...reasons ? { explanation: new Map(texts) } : {},
    status: scores.reasons,
  };
}

function download(blob, name) {
  const link = element("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

// Save what is shown: the numbers are those that the API gave.
export async function save(app, { batch, table, isFdr, canExplain }) {
  const flagged = Array.from(table.order).filter(row => batch.isFlagged(row));
  const reasons = canExplain ? await reasonsOf(app, { batch, table }, flagged) : null;
  const hasP = app.model.calibration !== null;
  const blob = await ask("save",
    { count: batch.count, columns: columnsOf(batch, { hasP, isFdr, reasons }) });
  download(blob, `${app.model.name}-scores.csv`);
  const left = reasons ? flagged.length - MOST_EXPLAINED : 0;
  byId("score-saved").textContent = `${batch.count.toLocaleString("en")} rows saved`
    + `${left > 0 ? `; explained are the ${MOST_EXPLAINED} rows with the least p` : ""}`;
}
