// The rate that decides, and what the calibration says of it.

import { get } from "../../page/api.js";
import { byId } from "../../page/dom.js";
import { bind } from "../../page/state.js";

export const rate = () => Number(byId("score-rate").value);
export const isFdr = () => byId("score-by").value === "fdr";

// A rate that so few calibration rows can promise, where that of before is lower.
export function raiseRate({ model: { calibration: facts, num_classes }, fields }) {
  if (!facts) return;
  const own = num_classes === null ? undefined : facts.classes?.[fields.context];
  const least = (own ?? facts).p_floor;
  if (rate() >= least) return;
  byId("score-rate").value = Math.ceil(least * 1e4) / 1e4;
  byId("score-rate").dispatchEvent(new Event("input"));
}

let latest = null; // what was asked last: an older answer is not taken

// The answer to what was asked last, which may be asked while this waits.
async function answerOfLatest() {
  for (;;) {
    const mine = latest;
    try {
      const found = await mine;
      if (mine === latest) return found;
    } catch (error) {
      if (mine === latest) throw error;
    }
  }
}

function showSlider({ p_floor: least }) {
  const slider = byId("score-slider");
  slider.min = Math.log10(least).toFixed(2);
  slider.max = Math.log10(0.5).toFixed(2);
  // Rates are rounded: under the keys the slider would never leave its place.
  if (document.activeElement !== slider) slider.value = Math.log10(rate());
}

// Let a batch know what its calibration says at the rate that is set.
export async function askCalibration(batch) {
  const { model, fields, signal } = batch;
  byId("score-decide").hidden = !model.calibration;
  if (!model.calibration) return;
  const query = new URLSearchParams({ ...isFdr() ? {} : { alpha: rate() },
    ...model.num_classes === null ? {} : { class: fields.context } });
  latest = get(`models/${encodeURIComponent(model.name)}/calibration?${query}`, { signal });
  const found = await answerOfLatest();
  signal.throwIfAborted();
  batch.calibration = found;
  showSlider(found);
}

// onChange is called when the rate is another; floor() is the lowest that can be promised.
export function watchRate(onChange, floor) {
  byId("score-decide").addEventListener("submit", event => event.preventDefault());
  for (const id of ["score-by", "score-rate"]) {
    bind(byId(id));
    byId(id).addEventListener("change", onChange);
  }
  byId("score-slider").addEventListener("input", () => {
    const value = Number((10 ** Number(byId("score-slider").value)).toPrecision(2));
    byId("score-rate").value = Math.max(floor(), value);
    byId("score-rate").dispatchEvent(new Event("change"));
  });
}
