// Scores of rows over those of calibration, with the threshold.

import { colour, onThemeChange } from "../../page/theme.js";

const HEIGHT = 260;
const BINS = 40; // where nothing is calibrated
const MOST_MARKS = 2000;

// Bins of rows alone, for a model without calibration.
function ownBins(values) {
  const sorted = Float64Array.from(values).sort();
  const [low, high] = [sorted[0], sorted[Math.floor(0.99 * (sorted.length - 1))]];
  const width = (high - low || 1) / BINS;
  return { edges: Array.from({ length: BINS + 1 }, (_, index) => low + index * width) };
}

/**
 * The bins that are drawn: those of calibration, and as many more to both sides as rows and
 * threshold need, within reason. Whatever lies beyond is counted in the last one.
 */
function binsOf(histogram, values, threshold) {
  const { edges } = histogram ?? ownBins(values);
  const width = edges[1] - edges[0];
  const own = edges.length - 1;
  let highest = threshold ?? -Infinity;
  for (const value of values) if (Number.isFinite(value) && value > highest) highest = value;
  const needed = Math.ceil((highest - edges[own]) / width);
  return { first: edges[0] - width, width, count: own + 2 + Math.max(0, Math.min(own, needed)) };
}

const binOf = (value, { first, width, count }) =>
  Math.max(0, Math.min(count - 1, Math.floor((value - first) / width)));

function shares(values, bins) {
  const counts = new Array(bins.count).fill(0);
  let all = 0;
  for (const value of values) {
    if (Number.isNaN(value)) continue;
    counts[binOf(value, bins)]++;
    all++;
  }
  return counts.map(count => count ? count / all : null);
}

function calibrationShares(histogram, bins) {
  const drawn = new Array(bins.count).fill(0);
  const { counts, below, above } = histogram;
  const all = below + above + counts.reduce((sum, count) => sum + count, 0);
  drawn[0] = below / all;
  counts.forEach((count, index) => { drawn[index + 1] = count / all; });
  drawn[bins.count - 1] += above / all;
  return drawn;
}

function drawThreshold(plot, threshold) {
  if (threshold === null) return;
  const { ctx, bbox } = plot;
  const at = plot.valToPos(threshold, "x", true);
  if (at < bbox.left || at > bbox.left + bbox.width) return;
  ctx.save();
  ctx.strokeStyle = colour("point");
  ctx.lineWidth = 2 * devicePixelRatio;
  ctx.beginPath();
  ctx.moveTo(at, bbox.top);
  ctx.lineTo(at, bbox.top + bbox.height);
  ctx.stroke();
  ctx.restore();
}

// A mark below the bars for each flagged row: one of many rows makes no bar that is seen.
function drawMarks(plot, marks) {
  const { ctx, bbox } = plot;
  ctx.save();
  ctx.fillStyle = colour("sample");
  for (const value of marks) {
    const at = plot.valToPos(value, "x", true);
    ctx.fillRect(at - devicePixelRatio, bbox.top + bbox.height - 9 * devicePixelRatio,
      2 * devicePixelRatio, 9 * devicePixelRatio);
  }
  ctx.restore();
}

const percent = value => `${Number((100 * value).toPrecision(2))} %`;

function optionsOf(host, bins, { marks, threshold, label }) {
  const paths = uPlot.paths.bars({ size: [1, Infinity], align: 1 });
  const axis = { stroke: colour("quiet"), grid: { stroke: colour("line"), width: 1 },
    ticks: { stroke: colour("line"), width: 1 } };
  return {
    width: host.clientWidth, height: HEIGHT,
    legend: { show: false }, cursor: { show: false },
    scales: { x: { time: false, range: [bins.first, bins.first + bins.count * bins.width] } },
    axes: [{ ...axis, label, labelSize: 24, size: 34 },
      { ...axis, size: 54, values: (_, ticks) => ticks.map(percent) }],
    series: [
      {},
      { fill: `${colour("grid")}66`, stroke: colour("grid"), width: 1, paths, points: { show: false } },
      { fill: `${colour("accent")}59`, stroke: colour("accent"), width: 1.5, paths,
        points: { show: false } },
    ],
    hooks: { draw: [plot => {
      drawMarks(plot, marks);
      drawThreshold(plot, threshold);
      host.dataset.most = plot.scales.y.max;
    }] },
  };
}

/**
 * A histogram in an element: draw({histogram, values, flagged, threshold, label}) draws it, and
 * clear() takes it away.
 *
 * histogram: of calibration, or null. values: scores of rows, NaN where there is none. flagged:
 * scores of flagged rows. threshold: or null. Gives how many rows lie beyond the last bin.
 */
export function scoreHistogram(host) {
  let plot = null;
  let last = null;

  function draw(given) {
    last = given;
    plot?.destroy();
    plot = null;
    const { histogram, values, flagged, threshold, label } = given;
    const bins = binsOf(histogram, values, threshold);
    const end = bins.first + (bins.count - 1) * bins.width;
    const beyond = values.reduce((sum, value) => sum + (value >= end + bins.width), 0);
    if (!host.clientWidth) return beyond; // drawn once it is seen
    const marks = flagged.slice(0, MOST_MARKS)
      .map(value => Math.min(value, end + bins.width / 2));
    const x = Array.from({ length: bins.count }, (_, index) => bins.first + index * bins.width);
    const grey = histogram ? calibrationShares(histogram, bins) : x.map(() => null);
    plot = new uPlot(optionsOf(host, bins, { marks, threshold, label }),
      [x, grey, shares(values, bins)], host);
    // Where what is drawn.
    Object.assign(host.dataset, bins);
    return beyond;
  }

  function clear() {
    plot?.destroy();
    plot = last = null;
  }

  const again = () => last && draw(last);
  onThemeChange(again);
  // Of width 0 while another view is seen, and then without a plot.
  new ResizeObserver(() => plot?.width !== host.clientWidth && again()).observe(host);
  return { draw, clear };
}
