// The states between noise and data of samples, and what lies between two of them.

import { callJson } from "../../page/api.js";
import { hasPixels } from "../../page/pictures.js";
import { arrayOf } from "../../page/shapes.js";

// States that are asked for at most: of layers, and of an equation, which is solved for each.
const MOST = { layers: 32, time: 16 };
// Rows times states that a request asks for at most, and rows of an equation.
const MOST_ROWS = 16384;
const MOST_SOLVED = { pictures: 9, points: 200 };

const cards = new Map(); // by model and version: whether its states have times, and how many there are

async function kindOf(model, fields, options) {
  const key = `${model.name} ${model.version}`;
  if (!cards.has(key)) {
    const probe = { ...fields, num_samples: 1, trajectory: 2 };
    const { trajectory_at: [first, last] } = await callJson("sample", probe,
      { ...options, shown: false });
    const hasTime = typeof first === "number";
    cards.set(key, { hasTime, states: hasTime ? MOST.time : parseInt(last, 10) + 1 });
  }
  return cards.get(key);
}

/**
 * The states of samples: {at, steps, count, layers}.
 *
 * fields: of /sample; num_samples are wanted, fewer may come. options: as `call` has them.
 * at: what each state is, as /sample says it. steps: an array each, of all rows.
 * layers: how many the flow has; null where the states are times.
 */
export async function askStates(model, fields, options) {
  const { hasTime, states } = await kindOf(model, fields, options);
  const trajectory = Math.max(2, Math.min(states, hasTime ? MOST.time : MOST.layers));
  const most = hasTime ? MOST_SOLVED[hasPixels(model) ? "pictures" : "points"] : Infinity;
  let rows = Math.min(fields.num_samples, most, Math.floor(MOST_ROWS / trajectory));
  for (;;) {
    try {
      const answer = await callJson("sample", { ...fields, num_samples: rows, trajectory }, options);
      return { ...unpack(answer, model), layers: hasTime ? null : states - 1 };
    } catch (error) {
      if (error.status !== 413 || rows === 1) throw error;
      rows = Math.ceil(rows / 2); // the server takes fewer
    }
  }
}

function unpack({ trajectory, trajectory_at: at }, model) {
  const rows = trajectory.filter(row => row !== null);
  const steps = at.map((_, state) => arrayOf(model).from(rows.map(row => row[state]).flat(Infinity)));
  return { at, steps, count: rows.length };
}

// The rows at a progress from 0, the noise, to 1, the data: straight from state to state.
export function between({ steps, count }, progress) {
  const place = progress * (steps.length - 1);
  const first = Math.min(Math.floor(place), steps.length - 2);
  const share = place - first, from = steps[first], to = steps[first + 1];
  if (share === 1) return { data: to, count };
  return { data: from.map((value, index) => value + share * (to[index] - value)), count };
}

// What is seen at a progress, in words.
export function describe({ at, layers }, progress) {
  const place = progress * (at.length - 1);
  const first = Math.min(Math.floor(place), at.length - 2);
  if (layers === null) {
    const time = at[first] + (place - first) * (at[first + 1] - at[first]);
    return `time ${time.toFixed(3)}: the noise is at ${at[0]}, the data at ${at.at(-1)}`;
  }
  const [count, name] = at[Math.round(place)].split(" ");
  const about = Number.isInteger(Number(place.toFixed(6))) ? "" : "about ";
  return count === "0" ? `${about}the noise, no layer of ${layers} applied`
    : `${about}${count} of ${layers} layers applied, the last a ${name}`;
}
