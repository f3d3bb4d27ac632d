// Calls of this server.

import { hasKey, KeyRefused, keyHeaders } from "./key.js";
import { readNpy, writeNpy } from "./npy.js";
import { record } from "./request.js";

const NPY = "application/x-npy";

// The server's no: what it says of it (application/problem+json), or of the connection.
export class Problem extends Error {
  constructor(message, { status = 0, code = "", errors = [] } = {}) {
    super(message);
    Object.assign(this, { status, code, errors });
  }
}

async function problem(answer) {
  try {
    const { detail, code, errors } = await answer.json();
    return new Problem(detail, { status: answer.status, code, errors });
  } catch { // a proxy's own, say
    return new Problem(`the answer is ${answer.status} ${answer.statusText}`, answer);
  }
}

async function send(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, { ...options, headers: { ...options.headers, ...keyHeaders() } });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(`the server cannot be reached: ${error.message}`);
  }
  if (answer.status === 401) throw new KeyRefused(hasKey() ? (await problem(answer)).message : "");
  if (!answer.ok) throw await problem(answer);
  return answer;
}

function ask(path, accept, { shown = false, signal } = {}) {
  if (shown) record({ path, accept });
  return send(path, { headers: { Accept: accept }, signal });
}

// What GET answers. options: signal and shown, as of `call`; it is not shown unless it says so.
export const get = async (path, options) => (await ask(path, "application/json", options)).json();
export const getText = async (path, options) => (await ask(path, "text/plain", options)).text();

function queryOf(fields) {
  const given = Object.entries(fields).filter(([, value]) => value !== undefined);
  return new URLSearchParams(given.map(([name, value]) =>
    [name, typeof value === "object" ? JSON.stringify(value) : value]));
}

/**
 * One call of an operation: the Response.
 *
 * fields: of the request, as docs/calls.md names them.
 * accept: the media type of the answer.
 * body: bytes in place of JSON, {bytes, type}; the fields then go into the query string.
 * rows: {data, shape}: rows as .npy in place of JSON.
 * shown: whether the request panel shows it.
 * part: {first, last, count}: which of the rows that were to be sent these are, where not all.
 * signal: an AbortSignal.
 */
export async function call(operation, fields, options = {}) {
  const { accept = "application/json", rows, shown = true, signal } = options;
  const body = rows ? { bytes: writeNpy(rows), type: NPY } : options.body;
  const request = {
    path: body ? `${operation}?${queryOf(fields)}` : operation,
    type: body ? body.type : "application/json",
    accept,
    body: body ? body.bytes : JSON.stringify(fields),
    part: options.part,
  };
  if (shown) record(request);
  return send(request.path, {
    method: "POST",
    headers: { "Content-Type": request.type, Accept: accept },
    body: request.body,
    signal,
  });
}

export const callJson = async (operation, fields, options) =>
  (await call(operation, fields, options)).json();

// Samples: {data, shape}. fields: of the request, with num_samples and seed.
export async function drawRows(fields, options) {
  const answer = await call("sample", fields, { ...options, accept: NPY });
  return readNpy(await answer.arrayBuffer());
}

// Rows in a request; fewer once the server has said that it takes fewer.
let rowsAtOnce = 16384;

/**
 * Rows in, the first output of each out: {data, shape}, both as bytes.
 *
 * rows: {data, shape} of any number of rows, sent in pieces as long as the server takes.
 */
export async function callRows(operation, fields, rows, options = {}) {
  const [count, ...event] = rows.shape;
  const size = event.reduce((product, length) => product * length, 1);
  const parts = [];
  for (let first = 0; first < count;) {
    const length = Math.min(rowsAtOnce, count - first);
    const piece = {
      data: rows.data.subarray(first * size, (first + length) * size),
      shape: [length, ...event],
    };
    try {
      const part = length < count ? { first, last: first + length - 1, count } : undefined;
      const answer = await call(operation, fields, { ...options, rows: piece, accept: NPY, part });
      parts.push(readNpy(await answer.arrayBuffer()));
      first += length;
    } catch (error) {
      if (error.status !== 413 || length === 1) throw error;
      rowsAtOnce = Math.ceil(length / 2);
    }
  }
  if (parts.length === 1) return parts[0];
  const data = new parts[0].data.constructor(parts.reduce((sum, part) => sum + part.data.length, 0));
  parts.reduce((at, part) => (data.set(part.data, at), at + part.data.length), 0);
  return { data, shape: [count, ...parts[0].shape.slice(1)] };
}
