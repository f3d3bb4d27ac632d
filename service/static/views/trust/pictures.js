// What a round trip lost, as a histogram; and as pictures, where rows are pictures.

import { byId, element } from "../../page/dom.js";
import { short } from "../../page/numbers.js";
import { hasPixels } from "../../page/pictures.js";
import { colour } from "../../page/theme.js";
import { decades } from "./roundtrip.js";

const HEIGHT = 180;
let plot = null;

const power = exponent => `1e${exponent}`;

function options(width, unit) {
  const axis = {
    stroke: colour("quiet"), grid: { stroke: colour("line"), width: 1 }, ticks: { show: false },
  };
  return {
    width, height: HEIGHT, legend: { show: false }, cursor: { show: false },
    scales: { x: { time: false, range: (_, low, high) => [low - 0.5, high + 1.5] },
      y: { range: (_, low, high) => [0, 1.1 * Math.max(1, high)] } },
    axes: [
      { ...axis, label: `error, ${unit}`, labelSize: 22, incrs: [1, 2, 3, 5],
        values: (_, at) => at.map(power) },
      { ...axis, size: 60, values: (_, at) => at.map(short) },
    ],
    series: [{}, { fill: colour("accent"), stroke: colour("accent"),
      points: { show: false }, paths: uPlot.paths.bars({ size: [0.9, 80], align: 1 }) }],
  };
}

// How many numbers came back with an error of which power of ten.
export function drawErrors({ errors }, unit) {
  const { low, counts } = decades(errors);
  byId("trip-histogram-figure").hidden = counts.length === 0;
  plot?.destroy();
  plot = null;
  if (counts.length === 0) return;
  const place = byId("trip-histogram");
  const at = counts.map((_, index) => low + index);
  plot = new uPlot(options(Math.max(200, place.clientWidth), unit), [at, counts], place);
  place.setAttribute("aria-label", "Errors: " + counts.map((count, index) =>
    `${short(count)} numbers from ${power(low + index)} to ${power(low + index + 1)}`).join(", "));
}

// Values from low (black) to high (white), of one channel or three.
function paint(values, [channels, height, width], low, high) {
  const canvas = element("canvas", { width, height, className: "pixels" });
  const pen = canvas.getContext("2d");
  const image = pen.createImageData(width, height);
  const pixels = width * height;
  for (let pixel = 0; pixel < pixels; pixel++) {
    for (let part = 0; part < 3; part++) {
      const value = values[channels === 3 ? part * pixels + pixel : pixel];
      image.data[4 * pixel + part] = 255 * (value - low) / (high - low);
    }
    image.data[4 * pixel + 3] = 255;
  }
  pen.putImageData(image, 0, 0);
  return canvas;
}

/** The picture that lost most: itself, its latent, what came back, and the error. */
export function drawPictures(parent, trip, model) {
  parent.hidden = !hasPixels(model);
  if (parent.hidden) return parent.replaceChildren();
  const first = Math.floor(trip.worst / model.features) * model.features;
  const row = ({ data }) => data.subarray(first, first + model.features);
  const levels = [0, model.num_levels - 1];
  const figure = (title, values, [low, high]) => {
    const canvas = paint(values, model.event_shape, low, high);
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", title);
    return element("figure", {}, canvas, element("figcaption", { textContent: title }));
  };
  parent.replaceChildren(
    figure("x, the picture that lost most", row(trip.x), levels),
    figure("z, from -3 (black) to 3 (white)", row(trip.z), [-3, 3]),
    figure("decoded", row(trip.back), levels),
    figure(`error, white is ${short(trip.largest)} levels`, row({ data: trip.errors }),
      [0, trip.largest || 1]),
  );
}
