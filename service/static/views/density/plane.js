// A plane with axes, in which a point is moved by pointer, finger and keys.

import { colour } from "../../page/theme.js";

const MARGIN = { left: 46, right: 10, top: 22, bottom: 40 }; // as page.css has them
const REACH = 28; // how near to the point a finger takes it, in pixels
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
const PANS = { a: [-1, 0], d: [1, 0], w: [0, 1], s: [0, -1] };
const ZOOMS = { "+": 0.7, "=": 0.7, "-": 1 / 0.7 };

const format = (value, step) => Math.abs(value) >= 1e5 || step < 1e-4
  ? value.toPrecision(3) : value.toFixed(Math.max(0, -Math.floor(Math.log10(step) + 1e-9)));

function drawAxes(pen, plane) {
  const { width, height, bounds, names } = plane;
  const bottom = height - MARGIN.bottom;
  pen.fillStyle = pen.strokeStyle = colour("quiet");
  pen.font = "12px system-ui, sans-serif";
  pen.lineWidth = 1;
  pen.strokeRect(MARGIN.left - 0.5, MARGIN.top - 0.5, width - MARGIN.left - MARGIN.right + 1,
    bottom - MARGIN.top + 1);
  bounds.forEach(([low, high], side) => {
    const ticks = d3.ticks(low, high, 5);
    pen.textAlign = side ? "right" : "center";
    pen.textBaseline = side ? "middle" : "top";
    for (const tick of ticks) {
      const text = format(tick, ticks[1] - ticks[0]);
      const [x, y] = plane.pixel(side ? [bounds[0][0], tick] : [tick, bounds[1][0]]);
      if (side) pen.fillText(text, MARGIN.left - 6, y);
      else pen.fillText(text, x, bottom + 6);
    }
  });
  pen.fillStyle = colour("ink");
  pen.textBaseline = "alphabetic";
  pen.fillText(names[0], width - MARGIN.right, height - 6);
  pen.textAlign = "left";
  pen.fillText(names[1], 4, MARGIN.top - 8);
}

function listenToPointers(root, plane, handlers) {
  let isDragging = false;
  const at = event => {
    const box = root.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  const isNear = event => {
    if (!plane.point) return false;
    const [[x, y], [a, b]] = [at(event), plane.pixel(plane.point)];
    return Math.hypot(x - a, y - b) <= REACH;
  };
  const isInside = event => {
    const [x, y] = at(event);
    return x >= MARGIN.left && x <= plane.width - MARGIN.right
      && y >= MARGIN.top && y <= plane.height - MARGIN.bottom;
  };
  const move = event => handlers.move(plane.value(at(event)));
  root.addEventListener("pointerdown", event => {
    // A finger that does not take the point scrolls the page; where it taps, the point goes.
    if (event.button || (event.pointerType === "touch" && !isNear(event))) return;
    isDragging = true;
    root.setPointerCapture(event.pointerId);
    move(event);
  });
  root.addEventListener("touchstart", event => {
    if (isNear(event.touches[0])) event.preventDefault();
  }, { passive: false });
  root.addEventListener("pointermove", event => {
    if (isDragging) move(event);
    else handlers.hover?.(isInside(event) ? plane.value(at(event)) : null);
  });
  const release = () => {
    if (isDragging) handlers.release();
    isDragging = false;
  };
  root.addEventListener("pointerup", release);
  root.addEventListener("pointercancel", release);
  root.addEventListener("pointerleave", () => handlers.hover?.(null));
  root.addEventListener("click", event => {
    if (event.pointerType !== "touch" || isNear(event)) return;
    move(event);
    handlers.release();
  });
  root.addEventListener("wheel", event => {
    // Over a plane that nobody works in, the wheel scrolls the page.
    if (!handlers.zoom || !(event.ctrlKey || root.contains(document.activeElement))) return;
    event.preventDefault();
    handlers.zoom(1.0015 ** event.deltaY, plane.value(at(event)));
  }, { passive: false });
}

function listenToKeys(root, plane, handlers) {
  root.addEventListener("keydown", event => {
    if (event.metaKey || event.altKey || (event.ctrlKey && !ARROWS[event.key])) return;
    const [arrow, pan, zoom] = [ARROWS[event.key], PANS[event.key], ZOOMS[event.key]];
    if (arrow && plane.point) {
      handlers.move(plane.point.map((value, side) =>
        value + arrow[side] * plane.stride(side) * (event.shiftKey ? 10 : 1)));
    } else if (pan && handlers.pan) handlers.pan(pan);
    else if (zoom && handlers.zoom) handlers.zoom(zoom, plane.point);
    else if (event.key === "0" && handlers.whole) handlers.whole();
    else return;
    event.preventDefault();
  });
  root.addEventListener("keyup", event => {
    if (ARROWS[event.key]) handlers.release();
  });
}

/**
 * A plane in an element that holds two canvases: .map below, .ink above it.
 *
 * handlers: draw(pen, plane), move(value), release(), and where they make sense hover(value or
 *   null), zoom(factor, about), pan(direction) and whole().
 */
export function makePlane(root, handlers) {
  const [map, ink] = root.querySelectorAll("canvas");
  let isAsked = false;
  const plane = {
    map,
    bounds: [[-1, 1], [-1, 1]],
    names: ["", ""],
    point: null,
    width: 0,
    height: 0,

    whole: [false, false], // which sides have whole numbers alone

    // How far an arrow key goes: a hundredth of what is seen, or a whole number.
    stride: side => plane.whole[side] ? 1 : (plane.bounds[side][1] - plane.bounds[side][0]) / 100,

    pixel: value => value.map((number, side) => {
      const [low, high] = plane.bounds[side];
      const share = (number - low) / (high - low);
      return side ? plane.height - MARGIN.bottom - share * (plane.height - MARGIN.top - MARGIN.bottom)
        : MARGIN.left + share * (plane.width - MARGIN.left - MARGIN.right);
    }),

    value: ([x, y]) => [
      (x - MARGIN.left) / (plane.width - MARGIN.left - MARGIN.right),
      (plane.height - MARGIN.bottom - y) / (plane.height - MARGIN.top - MARGIN.bottom),
    ].map((share, side) => {
      const [low, high] = plane.bounds[side];
      return low + Math.min(Math.max(share, 0), 1) * (high - low);
    }),

    // Draw at the next frame, once for all that changes until then.
    draw() {
      if (isAsked) return;
      isAsked = true;
      requestAnimationFrame(() => {
        isAsked = false;
        drawAll();
      });
    },
  };

  function drawAll() {
    const { clientWidth: width, clientHeight: height } = root;
    if (!width) return; // not in sight
    const ratio = devicePixelRatio;
    Object.assign(plane, { width, height });
    ink.width = Math.round(width * ratio);
    ink.height = Math.round(height * ratio);
    const pen = ink.getContext("2d");
    pen.scale(ratio, ratio);
    drawAxes(pen, plane);
    pen.beginPath();
    pen.rect(MARGIN.left, MARGIN.top, width - MARGIN.left - MARGIN.right,
      height - MARGIN.top - MARGIN.bottom);
    pen.clip();
    handlers.draw(pen, plane);
  }

  new ResizeObserver(() => plane.draw()).observe(root);
  listenToPointers(root, plane, handlers);
  listenToKeys(root, plane, handlers);
  return plane;
}

// A line through points of the plane. It breaks where one has no finite numbers, and where it
// leaps over half of the plane: an angle goes on at the other end of its circle.
export function trace(pen, plane, points) {
  const far = 0.5 * Math.min(plane.width, plane.height);
  let last = null;
  for (const point of points) {
    const pixel = point.every(Number.isFinite) ? plane.pixel(point) : null;
    const isNear = pixel && last && Math.hypot(pixel[0] - last[0], pixel[1] - last[1]) < far;
    if (isNear) pen.lineTo(...pixel);
    else if (pixel) pen.moveTo(...pixel);
    last = pixel;
  }
}

// Lines of a grid: light where the map is dark, and the other way round.
export function drawGrid(pen, plane, lines) {
  pen.globalAlpha = 0.5;
  pen.strokeStyle = colour("paper");
  pen.lineWidth = 1;
  pen.beginPath();
  for (const line of lines) trace(pen, plane, line);
  pen.stroke();
  pen.globalAlpha = 1;
}

// The point that is dragged.
export function drawPoint(pen, plane) {
  if (!plane.point?.every(Number.isFinite)) return;
  const [x, y] = plane.pixel(plane.point);
  pen.beginPath();
  pen.arc(x, y, 7, 0, 2 * Math.PI);
  pen.fillStyle = colour("point");
  pen.fill();
  pen.lineWidth = 2.5;
  pen.strokeStyle = colour("paper");
  pen.stroke();
}
