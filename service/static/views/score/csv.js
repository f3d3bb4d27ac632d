// Tables as text: commas, semicolons or tabs, quoted cells, decimal commas.

import "../../vendor/d3-dsv.js"; // gives globalThis.d3
import { othersOf, placesOf } from "./columns.js";
import { checkRows, FileProblem, listed } from "./limits.js";
import { featureNames } from "../../page/shapes.js";

const NUMBER = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i;
const DECIMAL_COMMA = /^[+-]?\d*,\d+(e[+-]?\d+)?$/i;
const MISSING = new Set(["", "na", "n/a", "nan", "null", "none"]);
const DELIMITERS = { ",": "commas", ";": "semicolons", "\t": "tabs" };

function decode(bytes) {
  if ((bytes[0] === 0xff && bytes[1] === 0xfe) || (bytes[0] === 0xfe && bytes[1] === 0xff)) {
    throw new FileProblem("the file is UTF-16: save it as CSV in UTF-8");
  }
  if (bytes.subarray(0, 4096).includes(0)) {
    throw new FileProblem("expected CSV, Parquet, .npy, PNG or JPEG, got a file of another kind");
  }
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch { // of old spreadsheets
    return new TextDecoder("windows-1252").decode(bytes);
  }
}

function delimiterOf(text) {
  const head = text.slice(0, 65536).split(/\r\n?|\n/).find(line => line.trim()) ?? "";
  const bare = head.replace(/"[^"]*"/g, "");
  const counts = Object.keys(DELIMITERS).map(sign => [bare.split(sign).length - 1, sign]);
  counts.sort(([one], [other]) => other - one);
  return counts[0][0] === 0 ? "," : counts[0][1];
}

// A number, NaN where a cell holds none, or undefined where it holds text.
function numberOf(cell, delimiter) {
  const text = cell.trim();
  if (NUMBER.test(text)) return Number(text);
  if (MISSING.has(text.toLowerCase())) return NaN;
  if (delimiter !== "," && DECIMAL_COMMA.test(text)) return Number(text.replace(",", "."));
  return undefined;
}

const LINE_END = /\r\n?|\n/g;
const endsIn = text => text.match(LINE_END)?.length ?? 0;

// The rows of a text that are not blank, and at which line of the file each begins.
function parse(text, delimiter, firstLine, isNarrow) {
  const isQuoted = text.includes('"'); // a quoted cell may hold ends of lines
  const rows = [];
  const lines = [];
  let line = firstLine;
  for (const cells of globalThis.d3.dsvFormat(delimiter).parseRows(text)) {
    if (cells.length > 1 || cells[0].trim() !== "" || isNarrow) {
      rows.push(cells);
      lines.push(line);
    }
    line += 1 + (isQuoted ? cells.reduce((sum, cell) => sum + endsIn(cell), 0) : 0);
  }
  return { rows, lines };
}

function headOf(lines, delimiter, model) {
  const first = lines[0].map(cell => cell.trim());
  const isNumbers = first.every(cell => numberOf(cell, delimiter) !== undefined);
  if (!isNumbers) return { header: first, rows: lines.slice(1), skipped: 1 };
  if (model.feature_names !== null) {
    throw new FileProblem(`the first line has to name the columns (${listed(model.feature_names)}`
      + "), and holds numbers: put a line of names before it");
  }
  return { header: first.map((_, index) => `column ${index + 1}`), rows: lines, skipped: 0 };
}

function checkHeader(header, delimiter, model) {
  const names = featureNames(model);
  if (header.length === 1 && names.length > 1 && !names.includes(header[0])) {
    throw new FileProblem(`expected a table with the columns ${listed(names)}, and between them `
      + `commas, semicolons or tabs; the first line is ${JSON.stringify(header[0].slice(0, 60))}`);
  }
  return placesOf(header, model);
}

// The numbers of a table, and the cells that are none.
function numbersOf(rows, places, delimiter, width) {
  const data = new Float64Array(rows.length * places.length).fill(NaN);
  const faults = [];
  rows.forEach((cells, row) => {
    if (cells.length !== width) {
      faults.push({ row, reason: `${cells.length} cells, expected ${width}` });
      return;
    }
    places.forEach((place, index) => {
      const number = numberOf(cells[place], delimiter);
      if (number === undefined) faults.push({ row, place, text: cells[place].slice(0, 30) });
      else data[row * places.length + index] = number;
    });
  });
  return { data, faults };
}

function checkFaults(faults, rows, header) {
  const ragged = faults.filter(fault => fault.reason);
  if (ragged.length === rows.length) {
    throw new FileProblem(`the first line names ${header.length} columns, and all others have `
      + `another number of cells, such as ${rows[0].length}: if these are decimal commas, write `
      + "points, or semicolons between cells");
  }
  for (const [place, name] of header.entries()) {
    const found = faults.filter(fault => fault.place === place);
    if (found.length > 0 && found.length === rows.length) {
      throw new FileProblem(`column ${name} holds text, such as ${JSON.stringify(found[0].text)}, `
        + "and numbers are expected");
    }
  }
}

const worded = (fault, header) => ({
  row: fault.row,
  reason: fault.reason ?? `${JSON.stringify(fault.text)} in ${header[fault.place]} is no number`,
});

/**
 * Read a table of text: {data, header, others, cells, faults, notes, lines}.
 *
 * others: columns that are none of the model's. cells: gives the text of a row. faults: of rows
 * that have no numbers, {row, reason}. lines: at which line of the file each row begins.
 */
export function readCsv(bytes, model) {
  const whole = decode(bytes);
  const text = whole.replace(/^sep=(.)\r?\n/i, "");
  const delimiter = delimiterOf(text);
  const parsed = parse(text, delimiter, text === whole ? 1 : 2, model.features === 1);
  if (parsed.rows.length === 0) throw new FileProblem("the file holds no lines");
  const { header, rows, skipped } = headOf(parsed.rows, delimiter, model);
  const places = checkHeader(header, delimiter, model);
  checkRows(rows.length, places.length, model);
  const { data, faults } = numbersOf(rows, places, delimiter, header.length);
  checkFaults(faults, rows, header);
  const notes = delimiter === "," ? [] : [`read with ${DELIMITERS[delimiter]} between cells`];
  const hasComma = cells => places.some(place => DECIMAL_COMMA.test(cells[place]?.trim() ?? ""));
  if (delimiter !== "," && rows.some(hasComma)) {
    notes.push("decimal commas read as points");
  }
  return {
    data, header, notes,
    lines: Uint32Array.from(parsed.lines.slice(skipped)),
    count: rows.length,
    others: othersOf(header, places),
    cells: row => rows[row],
    faults: faults.map(fault => worded(fault, header)),
  };
}

export const formatRow = cells => globalThis.d3.csvFormatRow(cells);
