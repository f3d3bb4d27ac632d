// Pictures and rows: a file at the size and in the levels of a model, a row on a canvas.

import { isPicture } from "./shapes.js";

const MAX_FILE_BYTES = 20e6;
// Pixels of a canvas that become one pixel of a row, at most.
const MAX_CELL = 8;

// Whether rows are pictures of whole levels, as they are in files.
export const hasPixels = model => isPicture(model) && model.num_levels > 1;

export const toLevels = (row, model) =>
  row.map(value => Math.min(Math.max(Math.round(value), 0), model.num_levels - 1));

// A row as the server draws it: whole levels, the lowest black.
export function drawPicture(canvas, row, model) {
  const [channels, height, width] = model.event_shape;
  Object.assign(canvas, { width, height });
  const pen = canvas.getContext("2d");
  const { data } = new ImageData(width, height);
  const scale = 255 / (model.num_levels - 1);
  const levels = toLevels(row, model);
  for (let pixel = 0; pixel < width * height; pixel++) {
    for (let channel = 0; channel < 3; channel++) {
      data[4 * pixel + channel] = scale * levels[(channel % channels) * width * height + pixel];
    }
    data[4 * pixel + 3] = 255;
  }
  pen.putImageData(new ImageData(data, width, height), 0, 0);
}

// How many pixels of a canvas a model's pixel takes: pens draw finer than rows are.
export const cellOf = ({ event_shape: [, height, width] }) =>
  Math.max(1, Math.min(MAX_CELL, Math.floor(512 / Math.max(height, width))));

// Grey of colour as the server has it: ITU-R 601, in the whole numbers of Pillow.
const grey = (red, green, blue) => (19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16;

/**
 * A canvas as a row: the mean of each cell x cell pixels, in the model's levels.
 *
 * canvas: opaque, of cell * width by cell * height pixels.
 */
export function readCanvas(canvas, model, cell) {
  const [channels, height, width] = model.event_shape;
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  const row = new Float32Array(channels * height * width);
  const mean = (line, column, channel) => {
    let sum = 0;
    for (let y = line * cell; y < (line + 1) * cell; y++) {
      for (let x = column * cell; x < (column + 1) * cell; x++) {
        sum += data[4 * (y * canvas.width + x) + channel];
      }
    }
    return Math.round(sum / cell ** 2);
  };
  for (let pixel = 0; pixel < width * height; pixel++) {
    const colour = [0, 1, 2].map(channel => mean(Math.floor(pixel / width), pixel % width, channel));
    const values = channels === 1 ? [grey(...colour)] : colour;
    values.forEach((value, channel) => {
      row[channel * width * height + pixel] = Math.round(value * (model.num_levels - 1) / 255);
    });
  }
  return row;
}

async function open(file) {
  const name = file.name || "what came";
  if (file.size === 0) throw new Error(`expected a picture, ${name} is empty`);
  if (file.size > MAX_FILE_BYTES) {
    throw new Error(`expected a picture of at most ${MAX_FILE_BYTES / 1e6} MB, ${name} has `
      + `${(file.size / 1e6).toFixed(1)}: save it smaller`);
  }
  try {
    // As the file has its levels, upright as phones mean it.
    return await createImageBitmap(file, {
      colorSpaceConversion: "none", imageOrientation: "from-image",
    });
  } catch {
    throw new Error(`expected a picture that this browser opens, such as PNG or JPEG; ${name}`
      + `${file.type ? ` (${file.type})` : ""} is none, or it is damaged`);
  }
}

/**
 * A picture of any size as a row: {row, done}, done being what was done to it, in words.
 *
 * Raises an Error that says what was expected where the file is no picture.
 */
export async function readPicture(file, model) {
  const bitmap = await open(file);
  const [channels, height, width] = model.event_shape;
  const scale = Math.min(bitmap.width / width, bitmap.height / height);
  const [cropWidth, cropHeight] = [width * scale, height * scale];
  // What is much larger is made smaller first, and then averaged: no pixel is left out.
  const cell = scale >= cellOf(model) ? cellOf(model) : 1;
  const canvas = new OffscreenCanvas(width * cell, height * cell);
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  Object.assign(pen, { fillStyle: "#fff", imageSmoothingQuality: "high" });
  pen.fillRect(0, 0, canvas.width, canvas.height);
  pen.drawImage(bitmap, (bitmap.width - cropWidth) / 2, (bitmap.height - cropHeight) / 2,
    cropWidth, cropHeight, 0, 0, canvas.width, canvas.height);
  const row = readCanvas(canvas, model, cell);
  const isCropped = Math.abs(bitmap.width - cropWidth) + Math.abs(bitmap.height - cropHeight) > .5;
  const done = [
    isCropped && `cropped to its middle ${Math.round(cropWidth)} x ${Math.round(cropHeight)}`,
    scale === 1 ? `${width} x ${height} as it came`
      : `resized from ${bitmap.width} x ${bitmap.height} to ${width} x ${height}`,
    channels === 1 ? "as grey" : "as colour",
    `${model.num_levels} levels`,
  ].filter(Boolean).join(", ");
  bitmap.close();
  return { row, done };
}
