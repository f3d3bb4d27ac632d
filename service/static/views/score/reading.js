// What rows are read from: files that were dropped, and the model itself.

import { call } from "../../page/api.js";
import { readNpy } from "../../page/npy.js";
import { hasPixels } from "../../page/pictures.js";
import { featureNames } from "../../page/shapes.js";
import { ask, factsOf, isPictureFile } from "./files.js";
import { checkBytes, FileProblem, listed } from "./limits.js";

const TRIED_ROWS = 200;
const MOST_PICTURES = 500;

// In words, what the page takes for a model.
export function takes(model) {
  const array = `.npy of shape (rows, ${model.event_shape.join(", ")}).`;
  if (hasPixels(model)) {
    const [channels, height, width] = model.event_shape;
    return `Pictures (PNG or JPEG, several at once) of ${width} x ${height} pixels, `
      + `${channels === 3 ? "in colour" : "grey"}, scored as they are: none is cropped or resized; `
      + `or ${array}`;
  }
  if (model.event_shape.length > 1) return array;
  return model.feature_names
    ? `CSV or Parquet with the columns ${listed(model.feature_names)}, in any order; others may be `
      + "there too. Or .npy in this order."
    : `CSV, Parquet or .npy of ${model.features} columns of numbers.`;
}

const nothingElse = { faults: [], notes: [], shown: [], others: [], lines: null };

async function readPictures(files, { model }) {
  if (!hasPixels(model)) {
    throw new FileProblem(`${model.name} takes rows of ${listed(featureNames(model))}, and no pictures`);
  }
  if (files.length > MOST_PICTURES) {
    throw new FileProblem(`expected ${MOST_PICTURES} pictures at most, got ${files.length}`);
  }
  const header = ["file"];
  const names = files.map(file => file.name);
  await ask("keep", { header, rows: names.map(name => [name]) });
  return { ...nothingElse, files, names, header, count: files.length };
}

async function readTable(files, { model, signal }) {
  const [file, another] = files;
  if (another) throw new FileProblem("expected one table, or several pictures");
  if (model.event_shape.length > 1 && !/\.npy$/i.test(file.name)) {
    throw new FileProblem(`${file.name}: ${model.name} takes ${takes(model)}`);
  }
  const read = await ask("read", { file, model: factsOf(model) }, signal);
  const { others } = read;
  if (others.length) read.notes.push(`not used, and kept in the download: ${listed(others)}`);
  return { ...read, rows: { data: read.data, shape: [read.count, ...model.event_shape] } };
}

// Files as rows, for `fill` of a batch.
export async function readFiles(files, batch) {
  for (const file of files) checkBytes(file, batch.model);
  return files.every(isPictureFile) ? readPictures(files, batch) : readTable(files, batch);
}

// Rows that the model draws, for `fill` of a batch.
export async function drawRows({ model, fields, signal }) {
  const answer = await call("sample", { ...fields, num_samples: TRIED_ROWS },
    { accept: "application/x-npy", signal });
  const drawn = readNpy(await answer.arrayBuffer());
  const header = model.features <= 64 ? featureNames(model) : [];
  const data = Float64Array.from(drawn.data);
  await ask("keep", { data, header, width: model.features });
  return { ...nothingElse, rows: { data, shape: drawn.shape }, count: drawn.shape[0], header,
    notes: [`${TRIED_ROWS} rows drawn from ${model.name}`] };
}
