// Numbers along a path as lines: log p, or a table's features.

import { element } from "../../page/dom.js";
import { colour } from "../../page/theme.js";
import { short } from "./frames.js";

const HEIGHT = 110;
const MAX_WIDTH = 480;

// A line that a chart draws at t.
const markAt = place => ({
  hooks: {
    draw: chart => {
      const x = chart.valToPos(place(), "x", true);
      chart.ctx.save();
      chart.ctx.strokeStyle = colour("point");
      chart.ctx.lineWidth = 2 * devicePixelRatio;
      chart.ctx.setLineDash([]);
      chart.ctx.beginPath();
      chart.ctx.moveTo(x, chart.bbox.top);
      chart.ctx.lineTo(x, chart.bbox.top + chart.bbox.height);
      chart.ctx.stroke();
      chart.ctx.restore();
    },
  },
});

/**
 * A chart over t.
 *
 * lines: [{values, name, isDashed, isFaint}] at the places of `t`; a faint one says where most rows
 * are.
 */
export function drawLines(parent, { title, t, lines, place, height = HEIGHT }) {
  const figure = element("figure", { className: "lines" },
    element("figcaption", { textContent: title }));
  parent.append(figure);
  const axis = { stroke: colour("quiet"), grid: { stroke: colour("line"), width: 1 },
    ticks: { stroke: colour("line") }, font: "11px system-ui" };
  const options = {
    width: Math.min(figure.clientWidth, MAX_WIDTH), height,
    legend: { show: false },
    cursor: { show: false },
    scales: { x: { time: false, range: [0, 1] } },
    axes: [
      { ...axis, space: 60, size: 24, values: (chart, ticks) => ticks.map(String) },
      { ...axis, space: 28, size: 56 },
    ],
    series: [{}, ...lines.map(({ isDashed, isFaint }) => ({
      stroke: colour(isFaint ? "grid" : isDashed ? "sample" : "accent"),
      width: isFaint ? 1 : 2,
      dash: isDashed ? [7, 6] : isFaint ? [2, 4] : [],
      points: { show: false },
    }))],
    plugins: [markAt(place)],
  };
  const values = lines.map(line => Array.from(line.values,
    value => Number.isFinite(value) ? value : null));
  const chart = new uPlot(options, [Array.from(t), ...values], figure);
  const [first] = lines;
  chart.root.setAttribute("role", "img");
  chart.root.setAttribute("aria-label", `${title}: from ${short(first.values[0])} at t 0 to `
    + `${short(first.values.at(-1))} at t 1`);
  return chart;
}
