// Numbers as they are read at a glance.

// Three digits, or all whole ones where it is large; a dash for what is not there.
export function short(number) {
  if (number === null || number === undefined || Number.isNaN(number)) return "–";
  const size = Math.abs(number);
  if (size >= 1e-3 && size < 100 || size === 0) return Number(number.toPrecision(3)).toString();
  if (size < 1) return Number(number.toPrecision(3)).toExponential();
  return Math.round(number).toLocaleString();
}

export const median = numbers => {
  const sorted = Float64Array.from(numbers).sort();
  const middle = sorted.length >> 1;
  return sorted.length === 0 ? NaN
    : sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
};
