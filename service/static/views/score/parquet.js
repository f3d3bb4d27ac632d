// Parquet files, plain or compressed by snappy or zstd.

import { parquetMetadataAsync, parquetRead } from "../../vendor/hyparquet.js";
import { decompress } from "../../vendor/fzstd.js";
import { othersOf, placesOf } from "./columns.js";
import { checkRows, FileProblem } from "./limits.js";

// What a file of so many bytes may unfold into.
const MAX_UNFOLDED = 512 * 2 ** 20;
const READ = new Set(["UNCOMPRESSED", "SNAPPY", "ZSTD"]);
const compressors = { ZSTD: (bytes, length) => decompress(bytes, new Uint8Array(length)) };
const NUMBERS = new Set(["BOOLEAN", "INT32", "INT64", "FLOAT", "DOUBLE"]);

// The columns of a file: {name, isNumber}; those that hold further columns are none.
function columnsOf(metadata) {
  const columns = [];
  const { schema } = metadata;
  for (let index = 1, left = schema[0].num_children; left > 0; left--) {
    const { name, num_children: inner = 0, type, converted_type: kind } = schema[index];
    const isFlat = inner === 0;
    const isTime = /DATE|TIME/.test(kind ?? "") || schema[index].logical_type?.type === "TIMESTAMP";
    const isNumber = (NUMBERS.has(type) && !isTime && type !== "BOOLEAN") || kind === "DECIMAL"
      || schema[index].logical_type?.type === "FLOAT16";
    columns.push({ name, isFlat, isNumber });
    for (let rest = 1; rest > 0; rest--) rest += schema[index++].num_children ?? 0;
  }
  return columns;
}

function check(metadata, columns, places, model) {
  checkRows(Number(metadata.num_rows), places.length, model);
  const chunks = metadata.row_groups.flatMap(group => group.columns.map(one => one.meta_data));
  const codec = chunks.map(chunk => chunk.codec).find(name => !READ.has(name));
  if (codec) {
    throw new FileProblem(`the file is compressed by ${codec}, and this page reads snappy and zstd: `
      + 'write it with compression="zstd", or use pushforward score');
  }
  const unfolded = chunks.reduce((sum, one) => sum + Number(one.total_uncompressed_size), 0);
  if (unfolded > MAX_UNFOLDED) throw new FileProblem("the file unfolds to more than 512 MB");
  const text = places.map(place => columns[place]).find(column => !column.isNumber);
  if (text) throw new FileProblem(`column ${text.name} does not hold numbers`);
}

async function metadataOf(file) {
  try {
    return await parquetMetadataAsync(file);
  } catch (error) {
    throw new FileProblem(`this Parquet file is damaged: ${error.message}`);
  }
}

const shown = value => value === null || value === undefined ? ""
  : value instanceof Date ? value.toISOString()
    : typeof value === "object" ? JSON.stringify(value, (_, inner) =>
      typeof inner === "bigint" ? String(inner) : inner) : String(value);

// The same as readCsv gives.
export async function readParquet(bytes, model) {
  const { buffer } = bytes;
  const file = { byteLength: buffer.byteLength, slice: (from, to) => buffer.slice(from, to) };
  const metadata = await metadataOf(file);
  const columns = columnsOf(metadata).filter(column => column.isFlat);
  const header = columns.map(column => column.name);
  const places = placesOf(header, model);
  check(metadata, columns, places, model);
  const count = Number(metadata.num_rows);
  const values = header.map(() => []);
  const onChunk = ({ columnName, columnData, rowStart }) => {
    const into = values[header.indexOf(columnName)];
    for (let index = 0; index < columnData.length; index++) into[rowStart + index] = columnData[index];
  };
  try {
    await parquetRead({ file, metadata, columns: header, onChunk, compressors });
  } catch (error) {
    throw new FileProblem(`this Parquet file cannot be read: ${error.message}`);
  }
  const data = new Float64Array(count * places.length);
  places.forEach((place, index) => {
    for (let row = 0; row < count; row++) {
      data[row * places.length + index] = values[place][row] == null ? NaN : Number(values[place][row]);
    }
  });
  return {
    data, header, count, notes: [], faults: [], lines: null,
    others: othersOf(header, places),
    cells: row => values.map(column => shown(column[row])),
  };
}
