// The side of z: the base density with its grid, or the latents as bars.

import { callJson } from "../../page/api.js";
import { byId, element } from "../../page/dom.js";
import { scaleOf } from "./colours.js";
import { evenAxis, extent, gridOf, paint } from "./grid.js";
import { drawGrid, drawPoint, makePlane } from "./plane.js";
import { normal } from "./point.js";

const REACHES = [3.6, 6, 12]; // of the plane of a standard normal
const ALONG = 81; // points of a line
const FINE = 200; // points a side of the map of a standard normal
const OTHER = 50; // of another base, which the server computes
const BARS = 24;

export function makeLatent(app, seen, handlers) {
  const plane = makePlane(byId("density-z"), { ...handlers, draw: drawOver });
  plane.names = ["z1", "z2"];
  let shown = "";

  function straightLines() {
    return plane.bounds.flatMap(([low, high], side) => {
      const step = seen.isNormal ? 0.5 : (high - low) / 12;
      const [first, last] = seen.isNormal ? [-3, 3] : [low, high];
      const [from, to] = seen.isNormal ? [-3, 3] : plane.bounds[1 - side];
      return d3.range(first, last + step / 2, step).map(value =>
        Array.from({ length: ALONG }, (_, index) => {
          const along = from + index / (ALONG - 1) * (to - from);
          return side ? [along, value] : [value, along];
        }));
    });
  }

  // The grid of z, and where it lies in x.
  async function warp(signal) {
    seen.straight = straightLines();
    const fields = { ...app.fields(), z: seen.straight.flat() };
    const { x } = await callJson("decode", fields, { shown: false, signal });
    seen.warped = seen.straight.map((_, line) =>
      x.slice(line * ALONG, (line + 1) * ALONG).map(row => row ?? [NaN, NaN]));
    plane.draw();
  }

  // The density of a base that is no standard normal is log p and log-det of what z decodes to.
  async function fillOther(grid, signal) {
    const z = Array.from(grid.values, (_, cell) =>
      [grid.x.at(cell % grid.x.count), grid.y.at(Math.floor(cell / grid.x.count))]);
    const decoded = await callJson("decode", { ...app.fields(), z }, { shown: false, signal });
    const fields = { ...app.fields(), x: decoded.x.map(row => row ?? [null, null]), invalid: "null" };
    const { log_prob: logProb } = await callJson("log_prob", fields, { shown: false, signal });
    logProb.forEach((value, cell) => {
      const logDet = decoded.log_det[cell];
      grid.values[cell] = value === null || logDet === null ? NaN : value + logDet;
    });
  }

  // Paint the base density over z.
  async function paintBase(signal) {
    const count = seen.isNormal ? FINE : OTHER;
    const grid = gridOf(...plane.bounds.map(side => evenAxis(side, count)));
    if (seen.isNormal) {
      grid.values.forEach((_, cell) => {
        grid.values[cell] = normal([grid.x.at(cell % grid.x.count),
          grid.y.at(Math.floor(cell / grid.x.count))]);
      });
    } else await fillOther(grid, signal);
    grid.known.fill(1);
    grid.step = 1;
    seen.baseGrid = grid;
    repaint();
  }

  function repaint() {
    if (!seen.baseGrid) return;
    const [least, high] = extent(seen.baseGrid);
    const low = Math.max(least, high - Number(byId("density-nats").value));
    paint(plane.map, seen.baseGrid, scaleOf(low, high));
    plane.draw();
  }

  // Which part of z is seen: all samples of the base, and the point as far as that makes sense.
  async function setBounds(signal) {
    const { z } = seen.found;
    if (seen.isNormal) {
      const farthest = Math.max(...z.map(Math.abs));
      const reach = REACHES.find(given => farthest < given) ?? REACHES.at(-1);
      if (shown === `normal ${reach}`) return;
      shown = `normal ${reach}`;
      plane.bounds = [[-reach, reach], [-reach, reach]];
      return paintBase(signal);
    }
    if (shown === "other") return;
    shown = "other";
    const fields = { ...app.fields(), x: seen.samples.x.slice(0, 500) };
    const encoded = await callJson("encode", fields, { shown: false, signal });
    plane.bounds = [0, 1].map(side => {
      const [low, high] = d3.extent(encoded.z.filter(row => row !== null), row => row[side]);
      return [low - 0.1 * (high - low), high + 0.1 * (high - low)];
    });
    return paintBase(signal);
  }

  function showBars({ z }) {
    const order = d3.range(z.length).sort((a, b) => Math.abs(z[b]) - Math.abs(z[a]));
    const chosen = z.length <= BARS ? d3.range(z.length) : order.slice(0, BARS);
    byId("density-bars-note").textContent = z.length <= BARS ? ""
      : `The ${BARS} of ${z.length} latents that are farthest from 0.`;
    const unit = seen.isNormal ? " σ" : "";
    byId("density-bars").replaceChildren(...chosen.map(index => {
      const bar = element("span", { className: z[index] < 0 ? "below" : "above" });
      bar.style.width = `${Math.min(Math.abs(z[index]) / 4, 1) * 50}%`;
      return element("li", {},
        element("span", { textContent: `z${index + 1}` }),
        element("span", { className: "track", "aria-hidden": "true" }, bar),
        element("span", { textContent: `${z[index].toFixed(2)}${unit}` }));
    }));
  }

  function drawOver(pen) {
    if (seen.straight && byId("density-warp").checked) {
      drawGrid(pen, plane, seen.straight);
    }
    drawPoint(pen, plane);
  }

  return {
    plane, warp, setBounds, repaint, showBars,
    forget() { shown = ""; },
  };
}
