// What the colours of the map mean.

import { byId } from "../../page/dom.js";
import { css, outsideColour, unsolvedColour } from "./colours.js";
import { thinned } from "./grid.js";

const short = value => value.toFixed(Math.abs(value) < 100 ? 2 : 0);

export function showLegend({ grid, low, high, least, scale }) {
  const bar = byId("density-scale");
  const pen = bar.getContext("2d");
  for (let at = 0; at < bar.width; at++) {
    pen.fillStyle = css(scale(low + at / (bar.width - 1) * (high - low)));
    pen.fillRect(at, 0, 1, bar.height);
  }
  const isKnown = Number.isFinite(high);
  byId("density-low").textContent = isKnown ? `${least < low ? "≤ " : ""}${short(low)}` : "";
  byId("density-high").textContent = isKnown ? short(high) : "nothing here has a density";
  const { values } = thinned(grid);
  for (const [id, isThere, colour] of [
    ["density-outside", values.includes(-Infinity), outsideColour()],
    ["density-unsolved", values.some(Number.isNaN), unsolvedColour()],
  ]) {
    byId(id).hidden = !isThere;
    byId(id).querySelector("canvas").getContext("2d").fillStyle = css(colour);
    byId(id).querySelector("canvas").getContext("2d").fillRect(0, 0, 16, 16);
  }
}
