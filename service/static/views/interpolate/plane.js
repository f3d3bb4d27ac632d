// Paths in the plane, over samples of the model.

import { colour } from "../../page/theme.js";

const MARGIN = 1.08;
const WIDTH = 480;

// The window that shows all points: centre and half of the width, for each axis.
function windowOf(points) {
  return [0, 1].map(axis => {
    const values = points.map(point => point[axis]).filter(Number.isFinite);
    const [low, high] = [Math.min(...values), Math.max(...values)];
    return { centre: (low + high) / 2, reach: Math.max((high - low) / 2, 1e-6) * MARGIN };
  });
}

/**
 * Draw samples, paths over them, and where t is.
 *
 * paths: [{rows, isDashed}]: points along each, the first with dots at its frames.
 * here: the point at t, or null.
 */
export function drawPlane(canvas, { samples, paths, frames, here }) {
  const pen = canvas.getContext("2d");
  const [across, up] = windowOf([...samples, ...frames]);
  canvas.width = WIDTH; // which clears it
  canvas.height = WIDTH * Math.min(Math.max(up.reach / across.reach, .5), 1);
  const at = ([x, y]) => [
    (1 + (x - across.centre) / across.reach) * canvas.width / 2,
    (1 - (y - up.centre) / up.reach) * canvas.height / 2,
  ];
  const dot = (point, radius) => {
    pen.beginPath();
    pen.arc(...at(point), radius, 0, 2 * Math.PI);
    pen.fill();
  };
  pen.fillStyle = colour("grid");
  for (const point of samples) pen.fillRect(...at(point), 1.5, 1.5);
  pen.lineWidth = 2.5;
  for (const { rows, isDashed } of paths) {
    pen.strokeStyle = colour(isDashed ? "sample" : "accent");
    pen.setLineDash(isDashed ? [7, 6] : []);
    pen.beginPath();
    rows.forEach((row, index) => index ? pen.lineTo(...at(row)) : pen.moveTo(...at(row)));
    pen.stroke();
  }
  pen.setLineDash([]);
  pen.fillStyle = colour("accent");
  for (const frame of frames) dot(frame, 4);
  if (here) {
    pen.fillStyle = colour("point");
    dot(here, 8);
  }
  pen.fillStyle = colour("ink");
  pen.font = "bold 18px system-ui";
  for (const [name, end] of [["A", frames[0]], ["B", frames.at(-1)]]) {
    const [x, y] = at(end);
    pen.fillText(name, x + 9, y - 9);
  }
}
