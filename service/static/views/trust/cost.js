// What each operation takes: of the networks, as the server states it, and of time, as measured.

import { call, callRows, drawRows, getText } from "../../page/api.js";
import { byId } from "../../page/dom.js";
import { parseMetrics } from "../../page/metrics.js";
import { median, short } from "../../page/numbers.js";
import { fillTable } from "../../page/table.js";

const NPY = "application/x-npy";
const MAX_TIMES = 9;
const MAX_MS = 1500; // of one operation; a call that takes longer is made once

const DIRECTION = { log_prob: "encode", encode: "encode", decode: "decode", sample: "decode" };
const OPERATIONS = Object.keys(DIRECTION);

// How often a row asks the networks, in words; null where the server does not know.
function passes({ cost }, operation) {
  const stated = cost?.[DIRECTION[operation]];
  if (stated === undefined) return null;
  if (stated === "1") return "once";
  if (stated === "evaluations") return "as often as its equation needs: /metrics counts them";
  return stated.replace(/^D\b/, "once a feature (D)");
}

// Rows of the largest batch that is computed now.
async function fullBatch(model, options) {
  const found = parseMetrics(await getText("metrics", options));
  const sample = found.get("pushforward_max_batch_rows")
    ?.find(({ labels }) => labels.model === model.name
      && labels.version === model.version && labels.op === "encode");
  return sample?.value ?? 1;
}

async function timeOf(send) {
  const times = [];
  const end = performance.now() + MAX_MS;
  do {
    const started = performance.now();
    await (await send()).arrayBuffer();
    times.push(performance.now() - started);
  } while (times.length < MAX_TIMES && performance.now() < end);
  return { ms: median(times), times: times.length };
}

/**
 * Time the operations with so many rows, one after the other.
 *
 * tell: called with (operation, {ms, times}) as each is known: the median, and of how many calls.
 */
async function measure(app, count, tell, signal) {
  const fields = app.fields();
  const quiet = { shown: false, signal };
  const options = { ...quiet, accept: NPY };
  const x = await drawRows({ ...fields, num_samples: count, seed: 0 }, quiet);
  const z = await callRows("encode", fields, x, quiet);
  const calls = {
    log_prob: () => call("log_prob", fields, { ...options, rows: x }),
    encode: () => call("encode", fields, { ...options, rows: x }),
    decode: () => call("decode", fields, { ...options, rows: z }),
    sample: () => call("sample", { ...fields, num_samples: count, seed: 0 }, options),
  };
  for (const operation of OPERATIONS) tell(operation, await timeOf(calls[operation]));
}

// Fill the table: `times` has, by operation, {one, full}; `batch` is how many rows `full` is of.
export function drawCost(model, times = {}, batch = null) {
  fillTable(byId("cost"), ["operation", "a row asks the networks", "one row, ms",
    `${batch ? short(batch) : "a full batch of"} rows, ms`, "rows/s"],
  OPERATIONS.map(operation => {
    const { one, full } = times[operation] ?? {};
    return [operation, passes(model, operation) ?? "not stated", short(one?.ms), short(full?.ms),
      short(full && 1000 * batch / full.ms)];
  }));
}

async function measureAll(app, signal) {
  const { model } = app;
  const times = Object.fromEntries(OPERATIONS.map(operation => [operation, {}]));
  const batch = await fullBatch(model, { signal });
  for (const [name, count] of [["one", 1], ["full", batch]]) {
    byId("cost-says").textContent = `${short(count)} rows at a time …`;
    await measure(app, count, (operation, found) => {
      times[operation][name] = found;
      drawCost(model, times, batch);
    }, signal);
  }
  byId("cost-says").textContent = "measured";
}

// Let the buttons measure and stop; gives a function that stops.
export function watchCost(app) {
  let measuring = null;
  const stop = () => {
    measuring?.abort();
    byId("cost-stop").hidden = true;
  };
  byId("cost-measure").addEventListener("click", async () => {
    stop();
    const { signal } = measuring = new AbortController();
    byId("cost-stop").hidden = false;
    try {
      await measureAll(app, signal);
    } catch (error) {
      app.fail(error, byId("cost-measure"));
    }
    if (!signal.aborted) byId("cost-stop").hidden = true;
  });
  byId("cost-stop").addEventListener("click", () => {
    stop();
    byId("cost-says").textContent = "stopped";
  });
  return stop;
}
