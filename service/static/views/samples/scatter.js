// Rows as points over two of their numbers, on axes that stay where they are.

import { colour } from "../../page/theme.js";

const MARGIN = { left: 46, right: 8, top: 8, bottom: 34 };
const SIZE = 520;
const POINT = 3;

const sample = (rows, feature) => {
  const { data, count } = rows;
  const width = data.length / count;
  return Array.from({ length: count }, (_, row) => data[row * width + feature])
    .filter(Number.isFinite);
};

// Where the numbers of a feature lie, with room at both sides.
function reach(rows, feature) {
  const found = sample(rows, feature);
  const low = Math.min(...found, Infinity), high = Math.max(...found, -Infinity);
  if (low > high) return [-1, 1];
  const room = 0.25 * (high - low) || 1;
  return [low - room, high + room];
}

/**
 * The ends of two axes for rows like these.
 *
 * isPlane: both are as long, so that a circle is round.
 */
export function axesOf(rows, [across, up], isPlane) {
  const ends = [reach(rows, across), reach(rows, up)];
  if (!isPlane) return ends;
  const half = Math.max(...ends.map(([low, high]) => high - low)) / 2;
  return ends.map(([low, high]) => [(low + high) / 2 - half, (low + high) / 2 + half]);
}

const short = number => String(Number(number.toPrecision(3)));

function said(rows, features, names) {
  return features.map(feature => {
    const found = sample(rows, feature);
    const mean = found.reduce((sum, value) => sum + value, 0) / found.length;
    return `${names[feature]} from ${short(Math.min(...found))} to ${short(Math.max(...found))}, `
      + `mean ${short(mean)}`;
  }).join("; ");
}

function drawAxes(pen, box, ends, labels) {
  pen.strokeStyle = colour("line");
  pen.fillStyle = colour("quiet");
  pen.font = "12px system-ui, sans-serif";
  pen.lineWidth = 1;
  pen.textAlign = "center";
  for (const tick of d3.ticks(...ends[0], 6)) {
    const x = Math.round(box.x(tick)) + 0.5;
    pen.beginPath();
    pen.moveTo(x, box.top);
    pen.lineTo(x, box.bottom);
    pen.stroke();
    pen.fillText(short(tick), x, box.bottom + 15);
  }
  pen.textAlign = "right";
  for (const tick of d3.ticks(...ends[1], 6)) {
    const y = Math.round(box.y(tick)) + 0.5;
    pen.beginPath();
    pen.moveTo(box.left, y);
    pen.lineTo(box.right, y);
    pen.stroke();
    pen.fillText(short(tick), box.left - 5, y + 4);
  }
  pen.fillStyle = colour("ink");
  pen.fillText(labels[0], box.right, box.bottom + 29);
  pen.textAlign = "left";
  pen.fillText(labels[1], 4, box.top + 10);
}

function boxOf([[left, right], [bottom, top]]) {
  const box = {
    left: MARGIN.left, right: SIZE - MARGIN.right, top: MARGIN.top, bottom: SIZE - MARGIN.bottom,
  };
  box.x = value => box.left + (value - left) / (right - left) * (box.right - box.left);
  box.y = value => box.bottom - (value - bottom) / (top - bottom) * (box.bottom - box.top);
  return box;
}

/**
 * Draw the points.
 *
 * rows: {data, count}. features: which of a row's numbers, across and up. names: of all of them.
 * ends: of the axes, as axesOf gives them.
 *
 * Returns how many points lie outside of the axes. What lies where stands in the canvas's data: the
 * ends of the axes, and their places in pixels.
 */
export function drawPoints(canvas, rows, { features, names, ends }) {
  const sharpness = Math.min(2, window.devicePixelRatio || 1);
  canvas.width = canvas.height = SIZE * sharpness;
  const pen = canvas.getContext("2d");
  pen.scale(sharpness, sharpness);
  const box = boxOf(ends);
  drawAxes(pen, box, ends, features.map(feature => names[feature]));
  pen.fillStyle = colour("sample");
  pen.globalAlpha = rows.count > 1000 ? 0.5 : 0.75;
  const width = rows.data.length / rows.count;
  Object.assign(canvas.dataset, {
    ends: JSON.stringify(ends),
    box: JSON.stringify([box.left, box.right, box.bottom, box.top].map(at => at * sharpness)),
  });
  let outside = 0;
  for (let row = 0; row < rows.count; row++) {
    const x = box.x(rows.data[row * width + features[0]]);
    const y = box.y(rows.data[row * width + features[1]]);
    if (x >= box.left && x <= box.right && y >= box.top && y <= box.bottom) {
      pen.fillRect(x - POINT / 2, y - POINT / 2, POINT, POINT);
    } else outside += 1;
  }
  canvas.setAttribute("aria-label", `${rows.count.toLocaleString("en")} samples as points: `
    + said(rows, features, names));
  return outside;
}
