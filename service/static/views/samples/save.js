// What is seen, as a file.

import { writeNpy } from "../../page/npy.js";

function save(blob, name) {
  const link = Object.assign(document.createElement("a"), {
    href: URL.createObjectURL(blob), download: name,
  });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

const quoted = name => /[",\n]/.test(name) ? `"${name.replaceAll('"', '""')}"` : name;

// The fewest digits that a float32 is told by.
function shortest(value) {
  for (let digits = 6; digits < 9; digits++) {
    const short = Number(value.toPrecision(digits));
    if (Math.fround(short) === value) return short;
  }
  return value;
}

export const savePng = (canvas, name) => canvas.toBlob(blob => save(blob, `${name}.png`));

export function saveCsv({ data, count }, names, name) {
  const width = data.length / count;
  const digits = data instanceof Float32Array ? shortest : value => value;
  const lines = Array.from({ length: count }, (_, row) =>
    Array.from(data.subarray(row * width, (row + 1) * width), digits).join(","));
  const text = [names.map(quoted).join(","), ...lines, ""].join("\n");
  save(new Blob([text], { type: "text/csv" }), `${name}.csv`);
}

export function saveNpy({ data, count }, shape, name) {
  save(new Blob([writeNpy({ data, shape: [count, ...shape] })]), `${name}.npy`);
}
