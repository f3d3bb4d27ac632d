// Why rows score as they do, asked for where it is looked at.

import { byId, element } from "../../page/dom.js";
import { KeyRefused } from "../../page/key.js";
import { drawPicture, hasPixels } from "../../page/pictures.js";
import { explainRows } from "./scoring.js";
import { showFeatures, showHeatMap, showReason } from "./why.js";

let detail = null; // AbortController of the row that is explained now

// Explain no row any more.
export const leaveRow = () => detail?.abort();

// Explain the flagged rows of the page that is shown, all at once.
export async function explainPage(app, batch, table) {
  if (!batch.canExplain) return;
  const wanted = table.rowsOfPage()
    .filter(row => batch.isFlagged(row) && !batch.scores.reasons.has(row) && !table.told(row));
  if (wanted.length === 0) return;
  try {
    const told = await explainRows(batch.fields, batch.rows, wanted, batch.signal);
    if (batch.signal.aborted) return;
    wanted.forEach((row, index) => told[index] && table.tell(row, told[index]));
  } catch (error) {
    app.fail(error, byId("score-save"));
  }
}

async function pictureOf({ files, model, rows }, row) {
  if (files) {
    const type = /png$/i.test(files[row].type || files[row].name) ? "image/png" : "image/jpeg";
    return { picture: await createImageBitmap(files[row]),
      asked: { body: { bytes: files[row], type } } };
  }
  const { features, event_shape: shape } = model;
  const data = rows.data.slice(row * features, (row + 1) * features);
  const picture = element("canvas");
  drawPicture(picture, data, model);
  return { picture, asked: { rows: { data, shape: [1, ...shape] } } };
}

async function explain(batch, table, row, { root, title, signal }) {
  const { fields, model } = batch;
  if (hasPixels(model)) {
    showReason(root, title, "Computing the heat map: the first one takes a few seconds.");
    return showHeatMap(root, fields, { title, ...await pictureOf(batch, row), signal });
  }
  if (!batch.canExplain) {
    return showReason(root, title, model.event_shape.length > 1 ? "Rows of this shape are not explained."
      : "What is expected of a feature is known from a calibration, which this model lacks.");
  }
  const told = table.told(row) ?? (await explainRows(fields, batch.rows, [row], signal))[0];
  signal.throwIfAborted();
  table.tell(row, told);
  showFeatures(root, title, told);
}

// Explain a row beside the table, in the place of the one before.
export async function explainRow(app, batch, table, row) {
  leaveRow();
  detail = new AbortController();
  const { signal } = detail;
  const root = byId("score-why");
  const title = batch.names ? `Row ${row}: ${batch.names[row]}` : `Why ${batch.nameOf(row)}`;
  const reason = batch.scores.reasons.get(row);
  if (reason) return showReason(root, title, reason);
  try {
    await explain(batch, table, row, { root, title, signal });
  } catch (error) {
    if (signal.aborted) return;
    if (error instanceof KeyRefused) app.fail(error);
    else showReason(root, title, error.message);
  }
}
