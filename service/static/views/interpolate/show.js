// What is shown of a decoded path: films, the row at t, and lines of numbers.
//
// view: {model, decoded, ends, blend, blendDensities, samples, charts, controls}: what
// ../interpolate.js knows.

import { byId, element } from "../../page/dom.js";
import { drawPicture, hasPixels } from "../../page/pictures.js";
import { featureNames, isPlane } from "../../page/shapes.js";
import { spread } from "./decoding.js";
import { drawFrames, inNats, short } from "./frames.js";
import { drawLines } from "./lines.js";
import { drawPlane } from "./plane.js";

// Features that have a chart each; of more, those that change most.
const MAX_CHARTS = 24;

export const places = () => spread(Number(byId("frames").value));
export const place = () => Number(byId("t").value);

export function drawFilms({ model, decoded, blend, blendDensities }, choose) {
  const at = places();
  drawFrames(byId("film"), model, at.map(t => ({
    ...decoded.known(t), place: `t ${short(t)}`,
  })), index => choose(at[index]));
  byId("straight").hidden = !blend.length;
  drawFrames(byId("blend"), model, blend.map((row, index) => ({
    row, place: `t ${short(at[index])}`, logProb: blendDensities[index],
  })));
}

// The row at t, or the nearest that is there.
export function drawBetween(view) {
  const { model, decoded, charts } = view;
  const { row, logProb } = decoded.known(decoded.nearest(place()));
  const canvas = byId("between");
  const said = `t ${short(place())}, log p ${inNats(logProb)} nats`;
  canvas.hidden = !hasPixels(model) && !isPlane(model);
  canvas.className = hasPixels(model) ? "pixels between-picture" : "";
  canvas.setAttribute("aria-label", said);
  if (hasPixels(model)) drawPicture(canvas, row, model);
  else if (isPlane(model)) drawPath(canvas, view, row, said);
  byId("t-shown").textContent = said;
  for (const { chart, tell } of charts) {
    tell(row);
    chart.redraw(false);
  }
}

function drawPath(canvas, { decoded, blend, samples }, here, said) {
  drawPlane(canvas, {
    samples, here,
    frames: places().map(t => decoded.known(t).row),
    paths: [
      ...blend.length ? [{ rows: blend, isDashed: true }] : [],
      { rows: decoded.sorted() },
    ],
  });
  canvas.setAttribute("aria-label", "the path from A to B over samples of the model; "
    + `at ${said}: (${[...here].map(short).join(", ")})`);
}

export function drawCharts(view) {
  const { model, decoded, blend, blendDensities } = view;
  const t = places();
  for (const { chart } of view.charts) chart.destroy();
  for (const id of ["along", "by-feature"]) byId(id).replaceChildren();
  const chart = drawLines(byId("along"), {
    title: `log p in nats${blend.length ? "; dashed: the straight line in x" : ""}`,
    t, place, height: 220,
    lines: [
      { values: t.map(at => decoded.known(at).logProb) },
      ...blend.length ? [{ values: blendDensities, isDashed: true }] : [],
    ],
  });
  view.charts = [{ chart, tell() {} }];
  if (!hasPixels(model) && !isPlane(model)) view.charts.push(...drawFeatures(view, t));
}

// Where the middle nine tenths of a feature's samples are.
function middle(samples, feature) {
  const values = samples.map(row => row[feature]).sort((one, other) => one - other);
  return [.05, .95].map(part => values[Math.floor(part * (values.length - 1))]);
}

function mostChanged(rows, bands) {
  const change = feature => Math.abs(rows.at(-1)[feature] - rows[0][feature])
    / (bands[feature][1] - bands[feature][0] || 1);
  const features = [...rows[0].keys()];
  if (features.length <= MAX_CHARTS) return features;
  return features.sort((one, other) => change(other) - change(one)).slice(0, MAX_CHARTS);
}

function drawFeatures({ model, decoded, blend, samples }, t) {
  const rows = t.map(at => decoded.known(at).row);
  const names = featureNames(model);
  const bands = names.map((_, feature) => middle(samples, feature));
  const shown = mostChanged(rows, bands);
  const which = shown.length < names.length
    ? `, the ${shown.length} of ${names.length} that change most` : "";
  byId("by-feature").append(element("p", { className: "quiet", textContent:
    `A line a feature${which}. Dotted: nine of ten samples of the model lie between.` }));
  return shown.map(feature => {
    const chart = drawLines(byId("by-feature"), {
      title: names[feature], t, place,
      lines: [
        { values: rows.map(row => row[feature]) },
        ...blend.length ? [{ values: blend.map(row => row[feature]), isDashed: true }] : [],
        ...bands[feature].map(value => ({ values: t.map(() => value), isFaint: true })),
      ],
    });
    const caption = chart.root.closest("figure").querySelector("figcaption");
    const tell = row => { caption.textContent = `${names[feature]} ${short(row[feature])}`; };
    return { chart, tell };
  });
}

export function describe({ known }) {
  const at = places();
  const values = at.map(t => known(t).logProb);
  const lowest = values.indexOf(Math.min(...values));
  byId("way").textContent = `${at.length} frames. log p: A ${inNats(values[0])}, `
    + `B ${inNats(values.at(-1))}, lowest ${inNats(values[lowest])} nats at t ${short(at[lowest])}.`;
}

export function tellFormula({ path: { angle, norms, isCircle } }) {
  const [from, to] = norms.map(norm => norm.toPrecision(4));
  const facts = `Here |z_A| = ${from}, |z_B| = ${to} and Ω = ${(angle * 180 / Math.PI).toFixed(1)}°.`;
  byId("formula").textContent = isCircle
    ? "Slerp: z(t) = r(t) [sin((1 − t)Ω) z_A / |z_A| + sin(tΩ) z_B / |z_B|] / sin Ω, where Ω is the "
      + "angle between z_A and z_B: the direction turns along a great circle, and the length goes "
      + `evenly from one to the other, r(t) = (1 − t)|z_A| + t|z_B|. ${facts}`
    : "Both latents point the same way, or opposite ways, and there is no one great circle through "
      + `them: z(t) = (1 − t) z_A + t z_B. ${facts}`;
}

export function tellEnds({ model, decoded, controls }, notes) {
  const errors = decoded.roundTrip();
  controls.forEach((control, end) => control.say(`${notes[end]}. Round trip: decode(encode(x)) `
    + `differs from x by ${errors[end].toExponential(1)}${hasPixels(model) ? " levels" : ""} `
    + "at most."));
}
