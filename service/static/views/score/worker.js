// Reads files, sorts and writes tables, away from the thread that draws.

import { readArray } from "./arrays.js";
import { formatRow, readCsv } from "./csv.js";
import { FileProblem } from "./limits.js";
import { readParquet } from "./parquet.js";

// Columns that the page shows beside the scores; the download has all.
const MOST_SHOWN = 3;

let table = null; // what was read last

const startsWith = (bytes, text) =>
  [...text].every((letter, index) => bytes[index] === letter.charCodeAt(0));

function readerOf(bytes) {
  if (startsWith(bytes, "PAR1")) return readParquet;
  if (startsWith(bytes, "\x93NUMPY")) return readArray;
  if (startsWith(bytes, "\x1f\x8b")) throw new FileProblem("the file is gzip: unpack it first");
  if (startsWith(bytes, "PK")) {
    throw new FileProblem("the file is a spreadsheet or an archive: save the table as CSV");
  }
  return readCsv;
}

async function read({ file, model }) {
  const bytes = new Uint8Array(await file.arrayBuffer());
  table = await readerOf(bytes)(bytes, model);
  const { data, count, header, notes, faults, others, lines } = table;
  const shown = others.slice(0, MOST_SHOWN).map(({ name, index }) => ({
    name, values: Array.from({ length: count }, (_, row) => table.cells(row)[index] ?? ""),
  }));
  return { data: data.slice(), count, header, notes, faults, lines, shown,
    others: others.map(({ name }) => name) };
}

// Rows that the page has made or taken from elsewhere: samples, pictures.
function keep({ data, header, rows, width }) {
  table = { header, cells: row => rows ? rows[row] : header.map((_, at) => data[row * width + at]) };
}

// Rows by a column of numbers, and where these are equal by a second one; NaN comes last.
function order({ first, then, descends }) {
  const sign = descends ? -1 : 1;
  const rank = value => Number.isNaN(value) ? Infinity : sign * value;
  return Uint32Array.from(first, (_, row) => row).sort((one, other) =>
    rank(first[one]) - rank(first[other])
    || (then ? then[other] - then[one] : 0) || one - other);
}

// Columns of a file that are called as ours keep a name of their own.
const renamed = (header, ours) => header.map(name => ours.includes(name) ? `${name} (file)` : name);

// A cell of a column: of numbers, of truths as bytes, or of text by row.
function cellOf(column, row) {
  if (column instanceof Map) return column.get(row) ?? "";
  if (column instanceof Uint8Array) return column[row] === 1;
  return Number.isNaN(column[row]) ? "" : column[row];
}

// The table with the scores beside it, as CSV.
function save({ count, columns }) {
  const ours = Object.keys(columns);
  const { header } = table;
  const lines = [formatRow(["row", ...renamed(header, ["row", ...ours]), ...ours])];
  for (let row = 0; row < count; row++) {
    const cells = Array.from(header, (_, index) => table.cells(row)[index]);
    lines.push(formatRow([row, ...cells, ...ours.map(name => cellOf(columns[name], row))]));
  }
  return new Blob(lines.map(line => `${line}\n`), { type: "text/csv" });
}

const TASKS = { read, keep, order, save };

onmessage = async ({ data: { id, task, ...given } }) => {
  try {
    const result = await TASKS[task](given);
    postMessage({ id, result });
  } catch (error) {
    postMessage({ id, message: error.message, isExpected: error instanceof FileProblem });
  }
};
