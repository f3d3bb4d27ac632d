// What is seen, as a file.

import { download } from "../../page/download.js";
import { writeNpy } from "../../page/npy.js";

const quoted = name => /[",\n]/.test(name) ? `"${name.replaceAll('"', '""')}"` : name;

// The fewest digits that a float32 is told by.
function shortest(value) {
  for (let digits = 6; digits < 9; digits++) {
    const short = Number(value.toPrecision(digits));
    if (Math.fround(short) === value) return short;
  }
  return value;
}

export const savePng = (canvas, name) => canvas.toBlob(blob => download(blob, `${name}.png`));

export function saveCsv({ data, count }, names, name) {
  const width = data.length / count;
  const digits = data instanceof Float32Array ? shortest : value => value;
  const lines = Array.from({ length: count }, (_, row) =>
    Array.from(data.subarray(row * width, (row + 1) * width), digits).join(","));
  const text = [names.map(quoted).join(","), ...lines, ""].join("\n");
  download(new Blob([text], { type: "text/csv" }), `${name}.csv`);
}

export function saveNpy({ data, count }, shape, name) {
  download(new Blob([writeNpy({ data, shape: [count, ...shape] })]), `${name}.npy`);
}
