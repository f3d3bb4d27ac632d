// A film strip: a frame beside the other, each with its place and its log p.

import { element } from "../../page/dom.js";
import { drawPicture, hasPixels } from "../../page/pictures.js";

export const inNats = number => number === undefined ? "…" : Number.isFinite(number)
  ? number.toLocaleString("en", { maximumFractionDigits: 1, minimumFractionDigits: 1 })
  : "no density";

export const short = number => Number(number.toPrecision(3)).toString();

/**
 * Fill a list with frames.
 *
 * frames: [{row, place, log_prob, note}]: log_prob undefined while it is not known.
 * choose: called with the index of a frame that is clicked; without it frames are no buttons.
 */
export function drawFrames(list, model, frames, choose = null) {
  list.replaceChildren(...frames.map(({ row, place, logProb, note }, index) => {
    const said = `${place}, log p ${inNats(logProb)}`;
    const parts = [];
    if (hasPixels(model)) {
      const canvas = element("canvas", { className: "pixels", role: "img", "aria-label": said });
      drawPicture(canvas, row, model);
      parts.push(canvas);
    } else if (model.features <= 3) {
      parts.push(element("span", { textContent: `(${[...row].map(short).join(", ")})` }));
    }
    parts.push(element("span", { textContent: place }),
      element("span", { className: "quiet", textContent: inNats(logProb) }));
    if (note) parts.push(element("span", { className: "quiet", textContent: note }));
    if (!choose) return element("li", {}, ...parts);
    const button = element("button", { type: "button", className: "frame" }, ...parts);
    button.addEventListener("click", () => choose(index));
    return element("li", {}, button);
  }));
}
