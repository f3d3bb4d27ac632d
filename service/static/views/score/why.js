// Why a row scores as it does: which features, or which pixels.

import { call } from "../../page/api.js";
import { element } from "../../page/dom.js";
import { AGAIN } from "./scoring.js";
import { short } from "./table.js";

const SIDE = 168; // of a picture, in pixels of the page

// One feature: its value, what was expected, and the nats as a bar.
function line(reason, most) {
  const share = reason.nats === null ? 1 : reason.nats / most;
  const bar = element("span", { className: "bar" });
  bar.style.width = `${(100 * share).toFixed(1)}%`;
  return element("tr", {},
    element("th", { scope: "row", textContent: reason.feature }),
    element("td", { textContent: short(reason.value) }),
    element("td", { textContent: short(reason.expected) }),
    element("td", { textContent: reason.nats === null ? "infinite" : reason.nats.toFixed(2) }),
    element("td", { className: "bars", "aria-hidden": "true" }, bar));
}

// The features of a row, largest first.
export function showFeatures(root, title, reasons) {
  const head = ["feature", "value", "expected", "nats"];
  const most = Math.max(1e-9, ...reasons.map(({ nats }) => nats ?? 0));
  root.replaceChildren(
    element("h3", { textContent: title }),
    element("table", { id: "score-features" },
      element("thead", {}, element("tr", {},
        ...head.map(text => element("th", { scope: "col", textContent: text })),
        element("td"))),
      element("tbody", {}, ...reasons.map(reason => line(reason, most)))),
    element("p", { className: "quiet", textContent: "Each feature by itself: expected is the value "
      + "that makes this row most likely, all others as they are, and nats is how much more "
      + "likely: 2.3 nats are a factor of ten. 0 nats: nothing is odd about it." }));
}

export function showReason(root, title, reason) {
  root.replaceChildren(element("h3", { textContent: title }),
    element("p", { textContent: reason }));
}

function figure(canvas, text) {
  return element("figure", {}, canvas, element("figcaption", { className: "quiet", textContent: text }));
}

function draw(image, label) {
  const canvas = element("canvas", { className: "pixels", role: "img", "aria-label": label,
    width: image.width, height: image.height });
  canvas.style.width = `${SIDE}px`;
  canvas.getContext("2d").drawImage(image, 0, 0);
  return canvas;
}

/**
 * A picture beside its heat map.
 *
 * picture: an ImageBitmap or a canvas. asked: what `call` takes beside the fields: {body} or {rows}.
 */
export async function showHeatMap(root, fields, { title, picture, asked, signal }) {
  const answer = await call("score", { ...fields, ...AGAIN },
    { ...asked, accept: "image/png", signal, shown: true });
  const scale = Number(answer.headers.get("X-Heat-Map-Scale"));
  const heat = await createImageBitmap(await answer.blob());
  signal.throwIfAborted();
  root.replaceChildren(
    element("h3", { textContent: title }),
    element("div", { className: "pictures" },
      figure(draw(picture, `${title}: the picture`), "the picture"),
      figure(draw(heat, `${title}: the heat map`), "what a brighter pixel would change")),
    element("p", { className: "heat-legend" },
      element("span", { textContent: "likelier if darker" }),
      element("span", { className: "heat-scale", "aria-hidden": "true" }),
      element("span", { textContent: "likelier if brighter" })),
    element("p", { className: "quiet", textContent: `Full colour is ${short(scale)} nats a level `
      + "of brightness; at white pixels a small change makes no difference." }));
}
