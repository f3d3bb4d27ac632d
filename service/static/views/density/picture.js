// The map of log p over x: asked for, painted, and what is drawn over it.

import { callRows } from "../../page/api.js";
import { byId } from "../../page/dom.js";
import { arrayOf } from "../../page/shapes.js";
import { colour } from "../../page/theme.js";
import { scaleOf } from "./colours.js";
import { contours, drawContours, levelsOfMap } from "./contours.js";
import { axisOf, dense, extent, fill, gridOf, look, missing, paint, rowsAt, stepsOf } from "./grid.js";
import { drawGrid, drawPoint, makePlane } from "./plane.js";
import { showLegend } from "./legend.js";

const DENSE = 10; // nats below the greatest that a map is fitted to
const PROBES = 3; // maps that are tried to find where the density is

// Whether a feature has whole numbers alone, to the model.
export const isWhole = (model, index) => (model.discrete ?? [])
  .some(given => given === index || given === model.feature_names?.[index]);

// How far the training data reach, and a margin; null where nobody knows.
export function wholeOf(model, samples, pair) {
  return pair.map(index => {
    const column = model.provenance?.columns?.[index] ?? {};
    let [low, high] = [column.low, column.high];
    if (!(low < high)) {
      const values = samples?.x.map(row => row[index]).sort((a, b) => a - b) ?? [-3, 3];
      [low, high] = [d3.quantileSorted(values, 0.005), d3.quantileSorted(values, 0.995)];
    }
    if (!(low < high)) [low, high] = [low - 1, low + 1];
    const margin = isWhole(model, index) ? 0.5 : 0.08 * (high - low);
    return [low - margin, high + margin];
  });
}

export function makePicture(app, seen, handlers) {
  const plane = makePlane(byId("density-x"), { ...handlers, draw: drawOver });
  let scale = scaleOf(0, 1);

  function emptyGrid() {
    const [x, y] = seen.bounds.map((side, index) =>
      axisOf(side, isWhole(app.model, seen.pair[index]), app.model.features));
    plane.bounds = [[x.low, x.high], [y.low, y.high]];
    return gridOf(x, y);
  }

  const asking = (grid, signal) => async cells => {
    if (!cells.length) return [];
    const rows = rowsAt(grid, cells, seen.row, seen.pair, arrayOf(app.model));
    return (await callRows("log_prob", app.fields(), rows, { shown: false, signal })).data;
  };

  const hasWhole = () => seen.pair.some(index => isWhole(app.model, index));

  function repaint() {
    const { grid } = seen;
    if (!grid?.step) return;
    const [least, high] = extent(grid);
    const low = Math.max(least, high - Number(byId("density-nats").value));
    scale = scaleOf(low, high);
    paint(plane.map, grid, scale);
    plane.map.classList.toggle("pixels", hasWhole());
    showLegend({ grid, low, high, least, scale });
    plane.draw();
  }

  function showLines() {
    const { grid } = seen;
    seen.lines = null;
    // Between whole numbers there is nothing that a line could go through.
    if (seen.isDone && !hasWhole() && Number.isFinite(extent(grid)[0])) {
      const levels = seen.levels ?? levelsOfMap(grid);
      // Equal levels would be one line: of a map with a single value, say.
      seen.lines = { levels, rings: contours(grid, [...new Set(levels)].sort((a, b) => a - b)) };
    }
    handlers.lined();
    plane.draw();
  }

  // Zoom to where the density is, where it is a small part of what is seen.
  async function findDense(signal) {
    const [coarse] = stepsOf(app.model);
    for (let probe = 0; probe < PROBES; probe++) {
      const grid = emptyGrid();
      for await (const step of fill(grid, [Math.max(coarse, 8)], asking(grid, signal))) void step;
      signal.throwIfAborted();
      if (!Number.isFinite(extent(grid)[1])) return;
      const box = dense(grid, DENSE).map(([low, high], side) => {
        const at = seen.row[seen.pair[side]];
        return [Math.min(low, at), Math.max(high, at)];
      });
      const shares = box.map(([low, high], side) =>
        (high - low) / (seen.bounds[side][1] - seen.bounds[side][0]));
      if (Math.min(...shares) > 0.6) return;
      seen.bounds = box;
    }
  }

  /**
   * Ask for a map of what is to be seen, coarse first.
   *
   * begun: called once, when the first map is to be seen.
   */
  async function makeMap(signal, { begun = () => {}, isPatient = false, isFitted = false } = {}) {
    const started = performance.now();
    const took = name => performance.measure(`density: ${name}`, { start: started });
    if (isFitted) await findDense(signal);
    const grid = emptyGrid();
    seen.isDone = false;
    for await (const step of fill(grid, stepsOf(app.model), asking(grid, signal), isPatient)) {
      const isFirst = seen.grid !== grid;
      seen.grid = grid;
      repaint();
      const isFiner = missing(grid, 1).length > 0;
      byId("density-progress").textContent = isFiner
        ? `${Math.ceil(grid.x.count / step)} × ${Math.ceil(grid.y.count / step)} points, refining` : "";
      if (isFirst) {
        seen.lines = null;
        took("first map");
        begun();
      }
      if (step === 1) took("fine map");
    }
    await new Promise(resolve => setTimeout(resolve)); // what was painted is seen first
    if (signal.aborted) return;
    seen.isDone = true;
    const isCoarse = missing(grid, 1).length > 0;
    byId("density-refine").hidden = !isCoarse;
    if (isCoarse) {
      byId("density-progress").textContent = byId("density-progress").textContent
        .replace("refining", "as this model takes long");
    }
    showLines();
  }

  function drawSamples(pen) {
    pen.fillStyle = colour("map-sample");
    pen.globalAlpha = 0.6;
    for (const row of seen.samples.x) {
      const [x, y] = plane.pixel(seen.pair.map(index => row[index]));
      pen.fillRect(x - 1, y - 1, 2, 2);
    }
    pen.globalAlpha = 1;
  }

  function drawOver(pen) {
    if (seen.warped && byId("density-warp").checked) {
      drawGrid(pen, plane, seen.warped);
    }
    if (seen.samples && byId("density-samples").checked) drawSamples(pen);
    if (seen.lines && byId("density-lines").checked) {
      drawContours(pen, plane, seen.lines.rings, colour("contour"));
    }
    drawPoint(pen, plane);
  }

  return { plane, makeMap, repaint, showLines, look: at => seen.grid ? look(seen.grid, at) : null };
}
