// Rows as .npy.

import { readNpy } from "../../page/npy.js";
import { featureNames } from "../../page/shapes.js";
import { checkRows, FileProblem } from "./limits.js";

const MOST_COLUMNS = 64; // of a picture no numbers are shown

// The same as readCsv gives.
export function readArray(bytes, model) {
  let array;
  try {
    array = readNpy(bytes.buffer);
  } catch (error) {
    throw new FileProblem(`this .npy file cannot be read: ${error.message}`);
  }
  const [count, ...event] = array.shape;
  const isFlat = event.length === 1 && event[0] === model.features;
  if (String(event) !== String(model.event_shape) && !isFlat) {
    throw new FileProblem(`expected an array of shape (rows, ${model.event_shape.join(", ")}), got `
      + `(${array.shape.join(", ")})`);
  }
  if (array.data.length !== count * model.features) {
    throw new FileProblem("the file is shorter than its head says");
  }
  checkRows(count, model.features, model);
  const data = Float64Array.from(array.data, Number);
  const header = model.features <= MOST_COLUMNS ? featureNames(model) : [];
  return {
    data, header, count, notes: [], faults: [], others: [], lines: null,
    cells: row => header.map((_, index) => data[row * model.features + index]),
  };
}
