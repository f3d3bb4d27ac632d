// Files that were dropped, as rows: read by a worker, so that the page goes on meanwhile.

import { FileProblem } from "./limits.js";

let worker = null;
let asked = 0;
const waiting = new Map();

function start() {
  worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
  worker.onmessage = ({ data: { id, result, message, isExpected } }) => {
    const { resolve, reject } = waiting.get(id);
    waiting.delete(id);
    if (message === undefined) resolve(result);
    else reject(isExpected ? new FileProblem(message)
      : new FileProblem(`this file cannot be read: ${message}`));
  };
  worker.onerror = event => stop(new FileProblem(`the file is too much for this page: `
    + `${event.message ?? "its worker ended"}`));
}

function stop(reason) {
  worker?.terminate();
  worker = null;
  for (const { reject } of waiting.values()) reject(reason);
  waiting.clear();
}

// Let the worker do a task; to give up ends the worker, and what it had read is gone.
export function ask(task, given, signal) {
  if (!worker) start();
  const id = ++asked;
  return new Promise((resolve, reject) => {
    waiting.set(id, { resolve, reject });
    signal?.addEventListener("abort", () => waiting.has(id) && stop(signal.reason), { once: true });
    worker.postMessage({ id, task, ...given });
  });
}

const PICTURE = /^image\/(png|jpeg)$/;
export const isPictureFile = file => PICTURE.test(file.type) || /\.(png|jpe?g)$/i.test(file.name);

// The facts of a model that reading needs: a worker gets a copy.
export const factsOf = ({ name, features, event_shape, feature_names }) =>
  ({ name, features, event_shape, feature_names });
