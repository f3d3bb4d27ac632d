// Rows as JSON: their log_prob, and verdicts.

import { callJson } from "../../page/api.js";
import { byId, clearComplaints, element } from "../../page/dom.js";
import { zeros } from "../../page/shapes.js";
import { short } from "./table.js";

export const BY_HAND = `
  <details id="by-hand">
    <summary>Rows as JSON</summary>
    <h3>Score rows</h3>
    <form id="score">
      <textarea id="rows" aria-label="rows as JSON"></textarea>
      <button>Score</button>
    </form>
    <pre id="scored" role="status" tabindex="0" aria-label="the answer"></pre>

    <h3>Find anomalies</h3>
    <form id="judge">
      <textarea id="suspects" aria-label="rows to be judged, as JSON"></textarea>
      <label>alpha, false alarms a row <input type="number" id="alpha" min="0" max="1" step="any"></label>
      <label>features to explain <input type="number" id="explain" min="1"></label>
      <button>Find</button>
    </form>
    <p id="judged" role="status"></p>
    <table id="verdicts" hidden></table>
  </details>`;

const because = reasons => (reasons ?? []).map(reason =>
  `${reason.feature} ${short(reason.value)}, expected ${short(reason.expected)}: `
  + `${short(reason.nats)} nats`).join("; ");

const line = (cells, kind) =>
  element("tr", {}, ...cells.map(text => element(kind, { textContent: text })));

function explainRows(table, answer) {
  const rows = answer.score.map((score, index) => line([
    index,
    short(score),
    answer.p_value ? short(answer.p_value[index]) : "none",
    answer.is_anomaly ? (answer.is_anomaly[index] ? "flagged" : "") : "",
    because(answer.explanation?.[index]),
  ], "td"));
  table.replaceChildren(line(["row", "score", "p", "decision", "because of"], "th"), ...rows);
  table.hidden = false;
}

function summarise(answer) {
  const { calibration } = answer;
  const found = (answer.is_anomaly ?? []).filter(flag => flag).length;
  const flagged = answer.is_anomaly ? `${found} of ${answer.score.length} rows flagged; ` : "";
  if (!calibration) return `${flagged}this model is not calibrated: no p-values`;
  return `${flagged}${calibration.statistic} over ${calibration.rows.toLocaleString()} rows of `
    + `${calibration.dataset}`;
}

function rowsOf(field) {
  try {
    return JSON.parse(field.value);
  } catch (error) {
    throw new Error(`expected rows as JSON, such as [[0, 1], [2, 3]]: ${error.message}`);
  }
}

async function scoreRows(app) {
  const fields = { ...app.fields(), x: rowsOf(byId("rows")) };
  byId("scored").textContent = JSON.stringify(await callJson("log_prob", fields), null, 2);
}

async function judge(app) {
  const fields = { ...app.fields(), x: rowsOf(byId("suspects")) };
  for (const name of ["alpha", "explain"]) {
    if (byId(name).value !== "") fields[name] = Number(byId(name).value);
  }
  byId("verdicts").hidden = true;
  byId("judged").textContent = "";
  const answer = await callJson("score", fields);
  explainRows(byId("verdicts"), answer);
  byId("judged").textContent = summarise(answer);
}

export function showByHand({ model }) {
  const row = model.features <= 64 ? JSON.stringify([zeros(model.event_shape)]) : "";
  byId("rows").value = byId("suspects").value = row;
  byId("alpha").value = model.calibration ? 0.01 : "";
  byId("explain").max = model.features;
  byId("verdicts").hidden = true;
  for (const id of ["scored", "judged"]) byId(id).textContent = "";
}

export function watchByHand(app) {
  for (const [form, action, field] of [["score", scoreRows, "rows"], ["judge", judge, "suspects"]]) {
    byId(form).addEventListener("submit", event => {
      event.preventDefault();
      clearComplaints(byId("by-hand"));
      action(app).catch(error => app.fail(error, byId(field)));
    });
  }
}
