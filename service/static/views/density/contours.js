// Lines of equal log p that enclose a share of the probability.

import { thinned } from "./grid.js";
import { trace } from "./plane.js";

export const SHARES = [0.5, 0.9, 0.99];

// The log p that shares of drawn samples lie above.
export const levelsOfSamples = logProbs => SHARES.map(share => d3.quantile(logProbs, 1 - share));

// The log p above which shares of the probability in a map lie.
export function levelsOfMap(grid) {
  const values = Float64Array.from(thinned(grid).values.filter(Number.isFinite)).sort().reverse();
  const weights = values.map(value => Math.exp(value - values[0]));
  const total = d3.sum(weights);
  let [sum, at] = [0, 0];
  return SHARES.map(share => {
    while (at < values.length - 1 && sum + weights[at] < share * total) sum += weights[at++];
    return values[at];
  });
}

// Where a line that lies between points of a grid is in the plane.
function between(places, index) {
  const first = Math.min(Math.max(Math.floor(index - 0.5), 0), Math.max(places.length - 2, 0));
  const step = places.length > 1 ? places[first + 1] - places[first] : 1;
  return places[first] + (index - 0.5 - first) * step;
}

// The lines of some levels: of each, the points of its lines in the plane.
export function contours(grid, levels) {
  const { width, height, values, x, y } = thinned(grid);
  const least = d3.min(values.filter(Number.isFinite)) ?? 0;
  const filled = values.map(value => Number.isFinite(value) ? value : least - 1000);
  const shapes = d3.contours().size([width, height]).thresholds(levels)(filled);
  return shapes.map(({ coordinates }) => coordinates.flat().map(ring =>
    ring.map(([column, line]) => [between(x, column), between(y, line)])));
}

export function drawContours(pen, plane, lines, colour) {
  pen.beginPath();
  for (const rings of lines) for (const ring of rings) trace(pen, plane, ring);
  pen.lineWidth = 1.5;
  pen.strokeStyle = colour;
  pen.stroke();
}
