// Lines over the last minutes, drawn by uPlot.

import { byId, element } from "../../page/dom.js";
import { short } from "../../page/numbers.js";
import { colour } from "../../page/theme.js";

const HEIGHT = 170;
const STEPS = [15, 30, 60, 120, 300]; // seconds between two times on an axis

const clock = seconds => new Date(1000 * seconds).toLocaleTimeString([], { hour12: false });

// The second line of a chart is dashed: colours alone do not tell them apart for everybody.
const line = (label, name, index) => ({
  label, stroke: colour(name), width: 2, dash: index ? [6, 4] : [], points: { size: 4 },
  value: (_, value) => short(value),
});

function options(chart, width, reach) {
  const axis = {
    stroke: colour("quiet"), grid: { stroke: colour("line"), width: 1 }, ticks: { show: false },
  };
  return {
    width, height: HEIGHT,
    scales: {
      x: { range: () => reach() },
      y: { range: (_, low, high) => [Math.min(0, low ?? 0), Math.max(chart.least, 1.1 * (high ?? 0))] },
    },
    axes: [
      { ...axis, space: 80, incrs: STEPS, values: (_, times) => times.map(clock) },
      { ...axis, size: 56, values: (_, ticks) => ticks.map(short) },
    ],
    series: [{ value: (_, time) => time ? clock(time) : "–" },
      ...chart.lines.map(([label, name], index) => line(label, name, index))],
  };
}

/**
 * Charts in a parent: {draw(columns), redo()}.
 *
 * charts: [{id, title, unit, least, lines: [[label, colour]]}]; `least` is the least that its axis
 * reaches.
 * reach: gives the first and the last second that are shown.
 * draw takes, by id, the columns of numbers of each chart, its times first.
 */
export function makeCharts(parent, charts, reach) {
  const plots = new Map();
  let drawn = null;
  for (const chart of charts) {
    parent.append(element("figure", { className: "chart" },
      element("figcaption", { textContent: chart.title }),
      element("div", { id: `live-chart-${chart.id}`, role: "img", "aria-label": chart.title })));
  }

  function plotOf(chart, columns) {
    const place = byId(`live-chart-${chart.id}`);
    const width = Math.max(200, place.clientWidth);
    const found = plots.get(chart.id);
    if (found?.width === width) return found.setData(columns);
    found?.destroy();
    plots.set(chart.id, new uPlot(options(chart, width, reach), columns, place));
  }

  function draw(data) {
    drawn = data;
    for (const chart of charts) {
      const columns = data[chart.id];
      plotOf(chart, columns);
      const seen = chart.lines.map(([label], index) => {
        const values = columns[index + 1].filter(value => value !== null);
        return values.length === 0 ? `${label}: none yet`
          : `${label}: ${short(values.at(-1))} ${chart.unit}, at most ${short(Math.max(...values))}`;
      });
      byId(`live-chart-${chart.id}`).setAttribute("aria-label", `${chart.title}. ${seen.join("; ")}`);
    }
  }

  // Make them again, in other colours or another width.
  function redo() {
    plots.forEach(plot => plot.destroy());
    plots.clear();
    if (drawn) draw(drawn);
  }
  return { draw, redo };
}
