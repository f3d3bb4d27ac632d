// Rows as pictures in a grid, as the server draws them.

const WIDEST = 560;

// Whole levels, the lowest black. A row that has no numbers is a checkerboard.
function draw(pixels, row, { event_shape: [channels, height, width], num_levels: levels }) {
  const plane = height * width;
  const hasNumbers = row.every(Number.isFinite);
  for (let at = 0; at < plane; at++) {
    for (let channel = 0; channel < 3; channel++) {
      const value = Math.min(Math.max(Math.round(row[(channel % channels) * plane + at]), 0),
        levels - 1);
      const odd = (at % width + Math.floor(at / width)) % 2;
      pixels.data[4 * at + channel] = hasNumbers ? Math.round(value * 255 / (levels - 1)) : 255 * odd;
    }
    pixels.data[4 * at + 3] = 255;
  }
}

// Draw {data, count} as a grid, row by row, nearly square.
export function drawPictures(canvas, { data, count }, model) {
  const [, height, width] = model.event_shape;
  const columns = Math.ceil(Math.sqrt(count)), lines = Math.ceil(count / columns);
  canvas.width = columns * width;
  canvas.height = lines * height;
  const scale = Math.max(1, Math.floor(WIDEST / canvas.width));
  canvas.style.width = `${canvas.width * scale}px`;
  const pen = canvas.getContext("2d");
  pen.fillRect(0, 0, canvas.width, canvas.height);
  const size = data.length / count, pixels = pen.createImageData(width, height);
  for (let row = 0; row < count; row++) {
    draw(pixels, data.subarray(row * size, (row + 1) * size), model);
    pen.putImageData(pixels, row % columns * width, Math.floor(row / columns) * height);
  }
}
