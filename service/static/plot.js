// Points of the plane, the origin in the middle.

export function plot(canvas, points) {
  const pen = canvas.getContext("2d"), side = canvas.width;
  const reach = 1.05 * Math.max(...points.flat().map(Math.abs));
  const place = value => side / 2 * (1 + value / reach);
  pen.clearRect(0, 0, side, side);
  pen.fillStyle = "#27c8";
  for (const [x, y] of points) pen.fillRect(place(x) - 1, side - place(y) - 1, 2, 2);
  canvas.hidden = false;
}
