// What the page takes of a file, and how it says no.

export const MAX_BYTES = 32 * 2 ** 20;
export const MAX_ROWS = 200_000;
export const MAX_CELLS = 20_000_000;

// Larger files are for the command, which reads them piece by piece.
const elsewhere = name => `for larger files: pushforward score ${name} FILE -o scores.parquet`;

export class FileProblem extends Error {}

const megabytes = bytes => `${(bytes / 2 ** 20).toFixed(bytes < 2 ** 20 ? 3 : 0)} MB`;

export function checkBytes(file, model) {
  if (file.size === 0) {
    throw new FileProblem(`${file.name} is empty: expected rows, or a picture`);
  }
  if (file.size > MAX_BYTES) {
    throw new FileProblem(`${file.name} has ${megabytes(file.size)}, and this page takes `
      + `${megabytes(MAX_BYTES)}; ${elsewhere(model.name)}`);
  }
}

export function checkRows(rows, columns, model) {
  if (rows === 0) throw new FileProblem("the file has no rows");
  if (rows > MAX_ROWS || rows * columns > MAX_CELLS) {
    throw new FileProblem(`the file has ${rows.toLocaleString("en")} rows of ${columns} columns, `
      + `and this page takes ${MAX_ROWS.toLocaleString("en")} rows and `
      + `${MAX_CELLS.toLocaleString("en")} numbers; ${elsewhere(model.name)}`);
  }
}

const MOST_LISTED = 12;

export const listed = names => names.length <= MOST_LISTED ? names.join(", ")
  : `${names.slice(0, MOST_LISTED).join(", ")} and ${names.length - MOST_LISTED} more`;
