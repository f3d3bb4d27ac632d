// What /score says of rows, as a table: score, p, flagged, and why.

const short = number => number === null ? "none" : Number(number.toPrecision(4)).toString();

const because = reasons => (reasons ?? []).map(reason =>
  `${reason.feature} ${short(reason.value)}, expected ${short(reason.expected)}: `
  + `${short(reason.nats)} nats`).join("; ");

function line(cells, kind) {
  const row = document.createElement("tr");
  row.append(...cells.map(text =>
    Object.assign(document.createElement(kind), { textContent: text })));
  return row;
}

export function explainRows(table, answer) {
  const rows = answer.score.map((score, index) => line([
    index,
    short(score),
    answer.p_value ? short(answer.p_value[index]) : "none",
    answer.is_anomaly ? (answer.is_anomaly[index] ? "flagged" : "") : "",
    because(answer.explanation?.[index]),
  ], "td"));
  table.replaceChildren(line(["row", "score", "p", "", "because of"], "th"), ...rows);
  table.hidden = false;
}

export function summarise(answer) {
  const { calibration } = answer;
  const found = (answer.is_anomaly ?? []).filter(flag => flag).length;
  const flagged = answer.is_anomaly ? `${found} of ${answer.score.length} rows flagged; ` : "";
  if (!calibration) return `${flagged}this model is not calibrated: no p-values`;
  return `${flagged}${calibration.statistic} over ${calibration.rows.toLocaleString()} rows of `
    + `${calibration.dataset}`;
}
