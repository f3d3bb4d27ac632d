// The way between two latents: along a great circle, where the norms differ along a spiral.
// Reference: Shoemake 1985, Animating rotation with quaternion curves; White 2016, 1609.04468.

// Below it the two directions are one, or opposite: a great circle through both is not defined.
const MIN_SINE = 1e-4;

const dot = (u, v) => u.reduce((sum, value, index) => sum + value * v[index], 0);

/**
 * The path z(t), 0 <= t <= 1, from one latent to another.
 *
 * {angle, norms, isCircle, at}: the angle between both in radians, their norms, whether it is a
 * circle (else the straight line), and z(t) as a Float64Array.
 */
export function pathBetween(from, to) {
  const norms = [from, to].map(z => Math.sqrt(dot(z, z)));
  const cosine = norms[0] && norms[1] ? dot(from, to) / (norms[0] * norms[1]) : 1;
  const angle = Math.acos(Math.min(Math.max(cosine, -1), 1));
  const isCircle = Math.sin(angle) > MIN_SINE;
  const at = t => {
    if (!isCircle) {
      return Float64Array.from(from, (value, index) => value + t * (to[index] - value));
    }
    const norm = norms[0] + t * (norms[1] - norms[0]);
    const [first, second] = [1 - t, t].map((part, end) =>
      norm * Math.sin(part * angle) / Math.sin(angle) / norms[end]);
    return Float64Array.from(from, (value, index) => first * value + second * to[index]);
  };
  return { angle, norms, isCircle, at };
}

// Rows of equal length as one array, of the type that the server answered in.
export function stack(rows, type, shape) {
  const data = new type(rows.length * rows[0].length);
  rows.forEach((row, index) => data.set(row, index * row.length));
  return { data, shape: [rows.length, ...shape] };
}

// The rows of an array.
export function unstack({ data, shape }) {
  const size = data.length / shape[0];
  return Array.from({ length: shape[0] }, (_, index) =>
    data.subarray(index * size, (index + 1) * size));
}
