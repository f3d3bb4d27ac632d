// The side of z: the base density with its grid, or the latents as bars.

import { callJson } from "../../page/api.js";
import { byId, element } from "../../page/dom.js";
import { scaleOf } from "./colours.js";
import { evenAxis, extent, gridOf, paint } from "./grid.js";
import { drawGrid, drawPoint, makePlane } from "./plane.js";
import { normal } from "./point.js";

const REACHES = [3.6, 6, 12]; // of what is seen of the plane, in standard deviations
const LINES = d3.range(-3, 3.1, 0.5);
const ALONG = d3.range(-3, 3.01, 0.075);
const POINTS = 200; // a side
const BARS = 24;

// Lines of constant z1, then of constant z2.
const straight = [0, 1].flatMap(side => LINES.map(value =>
  ALONG.map(along => side ? [along, value] : [value, along])));

export function makeLatent(app, seen, handlers) {
  const plane = makePlane(byId("density-z"), { ...handlers, draw: drawOver });
  plane.names = ["z1", "z2"];
  let grid = null;

  // Where the grid of z lies in x.
  async function warp(signal) {
    const fields = { ...app.fields(), z: straight.flat() };
    const { x } = await callJson("decode", fields, { shown: false, signal });
    seen.warped = straight.map((_, line) => x.slice(line * ALONG.length, (line + 1) * ALONG.length)
      .map(row => row ?? [NaN, NaN]));
  }

  // Show a latent, and as much of the plane as that takes.
  function show(z) {
    const farthest = z ? Math.max(...z.map(Math.abs)) : 0;
    const reach = REACHES.find(given => farthest < given) ?? REACHES.at(-1);
    plane.point = z;
    if (plane.bounds[0][1] !== reach || !grid) {
      plane.bounds = [[-reach, reach], [-reach, reach]];
      grid = gridOf(...plane.bounds.map(side => evenAxis(side, POINTS)));
      grid.values.forEach((_, cell) => {
        grid.values[cell] = normal([grid.x.at(cell % POINTS), grid.y.at(Math.floor(cell / POINTS))]);
      });
      grid.known.fill(1);
      grid.step = 1;
      repaint();
    }
    plane.draw();
  }

  function repaint() {
    if (!grid) return;
    const [least, high] = extent(grid);
    const low = Math.max(least, high - Number(byId("density-nats").value));
    paint(plane.map, grid, scaleOf(low, high));
    plane.draw();
  }

  function showBars(z) {
    const order = d3.range(z.length).sort((a, b) => Math.abs(z[b]) - Math.abs(z[a]));
    const chosen = z.length <= BARS ? d3.range(z.length) : order.slice(0, BARS);
    byId("density-bars-note").textContent = z.length <= BARS ? ""
      : `The ${BARS} of ${z.length} latents that are farthest from 0.`;
    byId("density-bars").replaceChildren(...chosen.map(index => {
      const bar = element("span", { className: z[index] < 0 ? "below" : "above" });
      bar.style.width = `${Math.min(Math.abs(z[index]) / 4, 1) * 50}%`;
      return element("li", {},
        element("span", { textContent: `z${index + 1}` }),
        element("span", { className: "track", "aria-hidden": "true" }, bar),
        element("span", { textContent: `${z[index].toFixed(2)} σ` }));
    }));
  }

  function drawOver(pen) {
    if (byId("density-warp").checked) drawGrid(pen, plane, straight);
    drawPoint(pen, plane);
  }

  return { plane, warp, show, repaint, showBars };
}
