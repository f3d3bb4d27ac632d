// Colours of log p, lighter or darker by the same step for the same nats.
// Reference: the map "mako" of seaborn (BSD 3-Clause), whose lightness is linear (CIELAB L*).

import { isDark } from "../../page/theme.js";

const STOPS = [
  [11, 4, 5], [35, 21, 38], [53, 38, 76], [64, 58, 117], [61, 82, 150], [54, 109, 160],
  [52, 135, 166], [53, 161, 171], [67, 187, 173], [108, 211, 173], [173, 227, 192], [222, 245, 229],
];
// A row that has no density, and one without an answer: in no map of the stops.
const OUTSIDE = { light: [243, 221, 190], dark: [74, 56, 40] };
const UNSOLVED = { light: [190, 190, 190], dark: [96, 96, 96] };

// The colour of a share of the scale, 0 to 1: what is dense stands out from the paper.
export function colourOf(share) {
  const along = (isDark() ? share : 1 - share) * (STOPS.length - 1);
  const first = Math.min(Math.floor(along), STOPS.length - 2);
  return STOPS[first].map((low, index) =>
    Math.round(low + (along - first) * (STOPS[first + 1][index] - low)));
}

const ofScheme = colours => colours[isDark() ? "dark" : "light"];
export const outsideColour = () => ofScheme(OUTSIDE);
export const unsolvedColour = () => ofScheme(UNSOLVED);

// log p to colour: low and high are the ends of the scale in nats; -inf has no density.
export function scaleOf(low, high) {
  const steps = Array.from({ length: 256 }, (_, step) => colourOf(step / 255));
  const [outside, unsolved] = [outsideColour(), unsolvedColour()];
  return value => {
    if (Number.isNaN(value)) return unsolved;
    if (value === -Infinity) return outside;
    const share = high > low ? (value - low) / (high - low) : 1;
    return steps[Math.round(255 * Math.min(Math.max(share, 0), 1))];
  };
}

export const css = ([red, green, blue]) => `rgb(${red} ${green} ${blue})`;
