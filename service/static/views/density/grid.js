// log p at the points of a grid over two features: coarse first, then finer.

const FINE = 200;
// Numbers in all rows of a map: one of a wide table has fewer points.
const MOST_NUMBERS = 4e6;
// Seconds: a finer grid that would take longer is made when it is asked for.
const PATIENCE = 10;
// Seconds that one request of a map may take.
const PIECE = 0.2;

// So many points between two ends, each in the middle of its part.
export const evenAxis = ([low, high], count) => ({
  low, high, count, at: index => low + (index + 0.5) * (high - low) / count,
});

// The points of one side of a map: {low, high, count, at(index)}. Whole numbers have one each.
export function axisOf([low, high], isWhole, features) {
  const most = Math.min(FINE, Math.floor(Math.sqrt(MOST_NUMBERS / features)));
  if (!isWhole) return evenAxis([low, high], most);
  const [first, last] = [Math.ceil(low), Math.max(Math.floor(high), Math.ceil(low))];
  if (last - first < most) return evenAxis([first - 0.5, last + 0.5], last - first + 1);
  const even = evenAxis([low, high], most);
  return { ...even, at: index => Math.round(even.at(index)) };
}

// Nothing is known of it yet: step is how many points share the value of one of them.
export function gridOf(x, y) {
  const size = x.count * y.count;
  return { x, y, values: new Float64Array(size).fill(NaN), known: new Uint8Array(size), step: 0 };
}

// Steps: a continuous flow starts with few rows, as each takes it longer.
export const stepsOf = model => model.cost?.encode === "evaluations" ? [16, 8, 4, 2, 1] : [4, 2, 1];

// Which point of each step stands for all of it: one that the next step has too, near its middle.
const STAND_INS = { 16: 10, 8: 2, 4: 2, 2: 0, 1: 0 };
const standIn = (index, step, count) => Math.min(index - index % step + STAND_INS[step], count - 1);

// Where the value at a point stands.
export function place({ x, y, known, step }, column, line) {
  const own = line * x.count + column;
  if (known[own]) return own;
  return standIn(line, step, y.count) * x.count + standIn(column, step, x.count);
}

// The points that a step asks for.
export function missing({ x, y, known }, step) {
  const cells = [];
  for (let line = 0; line < y.count; line += step) {
    for (let column = 0; column < x.count; column += step) {
      const cell = standIn(line, step, y.count) * x.count + standIn(column, step, x.count);
      if (!known[cell]) cells.push(cell);
    }
  }
  return cells;
}

// A row for each of the points: the one that is given, with two of its features at the point.
export function rowsAt({ x, y }, cells, row, [first, second], Numbers) {
  const data = new Numbers(cells.length * row.length);
  cells.forEach((cell, index) => {
    data.set(row, index * row.length);
    data[index * row.length + first] = x.at(cell % x.count);
    data[index * row.length + second] = y.at(Math.floor(cell / x.count));
  });
  return { data, shape: [cells.length, row.length] };
}

/**
 * Fill a grid, and say after each step that it is finer.
 *
 * ask: rows to the log p of each, a promise.
 * isPatient: whether steps that take long are made too.
 */
export async function* fill(grid, steps, ask, isPatient) {
  let secondsARow = 0;
  for (const step of steps) {
    const cells = missing(grid, step);
    if (!isPatient && cells.length * secondsARow > PATIENCE) return;
    const started = performance.now();
    // In pieces, so that a point that is dragged meanwhile waits for one of them at most.
    const piece = secondsARow ? Math.max(128, Math.floor(PIECE / secondsARow)) : cells.length;
    for (let first = 0; first < cells.length; first += piece) {
      const asked = cells.slice(first, first + piece);
      const values = await ask(asked);
      asked.forEach((cell, index) => { grid.values[cell] = values[index]; });
    }
    if (cells.length) secondsARow = (performance.now() - started) / 1000 / cells.length;
    for (const cell of cells) grid.known[cell] = 1;
    grid.step = step;
    yield step;
  }
}

// The value at a point of the plane, and the middle of its cell; null beyond the grid.
export function look(grid, [a, b]) {
  const { x, y } = grid;
  const column = Math.floor((a - x.low) / (x.high - x.low) * x.count);
  const line = Math.floor((b - y.low) / (y.high - y.low) * y.count);
  if (!grid.step || column < 0 || line < 0 || column >= x.count || line >= y.count) return null;
  const cell = place(grid, column, line);
  return {
    at: [x.at(cell % x.count), y.at(Math.floor(cell / x.count))],
    value: grid.values[cell],
  };
}

// Smallest and greatest log p that there is; [NaN, NaN] where there is none.
export function extent(grid) {
  let [low, high] = [Infinity, -Infinity];
  grid.values.forEach((value, cell) => {
    if (!grid.known[cell] || !Number.isFinite(value)) return;
    low = Math.min(low, value);
    high = Math.max(high, value);
  });
  return low <= high ? [low, high] : [NaN, NaN];
}

// The part of a map where log p is within so many nats of its greatest, and a margin about it.
export function dense(grid, nats) {
  const floor = extent(grid)[1] - nats;
  const box = [[Infinity, -Infinity], [Infinity, -Infinity]];
  grid.values.forEach((value, cell) => {
    if (!grid.known[cell] || !(value >= floor)) return;
    [grid.x.at(cell % grid.x.count), grid.y.at(Math.floor(cell / grid.x.count))]
      .forEach((at, side) => {
        box[side] = [Math.min(box[side][0], at), Math.max(box[side][1], at)];
      });
  });
  return box.map(([low, high], side) => {
    const { low: first, high: last, count } = side ? grid.y : grid.x;
    const margin = Math.max(0.15 * (high - low), grid.step * (last - first) / count);
    return [low - margin, high + margin];
  });
}

// Paint each point as a pixel, the least values at the lower left.
export function paint(canvas, grid, scale) {
  const { x, y } = grid;
  canvas.width = x.count;
  canvas.height = y.count;
  const pen = canvas.getContext("2d");
  const image = pen.createImageData(x.count, y.count);
  for (let line = 0; line < y.count; line++) {
    for (let column = 0; column < x.count; column++) {
      const colour = scale(grid.values[place(grid, column, line)]);
      const at = 4 * ((y.count - 1 - line) * x.count + column);
      image.data.set(colour, at);
      image.data[at + 3] = 255;
    }
  }
  pen.putImageData(image, 0, 0);
}

// The points that values were asked for, as a grid of its own: {width, height, values, x, y}.
export function thinned(grid) {
  const side = ({ count }) => Array.from({ length: Math.ceil(count / grid.step) },
    (_, index) => standIn(index * grid.step, grid.step, count));
  const [columns, lines] = [side(grid.x), side(grid.y)];
  return {
    width: columns.length,
    height: lines.length,
    values: lines.flatMap(line => columns.map(column => grid.values[line * grid.x.count + column])),
    x: columns.map(grid.x.at),
    y: lines.map(grid.y.at),
  };
}
