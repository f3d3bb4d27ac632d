// One end of a path: a row that is drawn by the model or by hand, or comes as a file or as JSON.

import { drawRows } from "../../page/api.js";
import { clearComplaints, element } from "../../page/dom.js";
import { parseJson } from "../../page/json.js";
import { cellOf, drawPicture, hasPixels, readCanvas, readPicture, toLevels }
  from "../../page/pictures.js";
import { read, write } from "../../page/state.js";

const MIN_PEN = 12; // pixels of the canvas: 1.5 of a small picture's

const html = (side, name) => `
  <legend>${name}</legend>
  <label>from <select id="from-${side}">
    <option value="sample">a sample of the model</option>
    <option value="hand">drawn by hand</option>
    <option value="file">a picture file</option>
    <option value="json">a row as JSON</option>
  </select></label>
  <div data-from="sample">
    <label>seed <input type="number" id="seed-${side}" min="0" required></label>
    <button type="button" id="another-${side}">Another</button>
  </div>
  <div data-from="hand">
    <canvas id="hand-${side}" class="hand" tabindex="0" role="application"></canvas>
    <p class="quiet">Draw with mouse, pen or finger. With keys: arrows move, Space lifts or lowers
      the pen.</p>
    <label id="ink-field-${side}">ink <input type="color" id="ink-${side}" value="#ffffff"></label>
    <button type="button" id="clear-${side}">Clear</button>
  </div>
  <div data-from="file">
    <label>picture <input type="file" id="file-${side}" accept="image/*"></label>
    <label><input type="checkbox" id="invert-${side}"> swap light and dark</label>
    <p class="quiet">or drop it here</p>
  </div>
  <div data-from="json">
    <textarea id="row-${side}" aria-label="${name} as JSON" spellcheck="false">
</textarea>
    <button type="button" id="use-${side}">Use this row</button>
  </div>
  <canvas id="picture-${side}" class="pixels end-picture" role="img"></canvas>
  <p id="about-${side}" class="quiet" role="status"></p>`;

// One row, flat, of what was written as JSON: a list, or a list of one list.
function parseRow(text, model) {
  const row = [parseJson(text, "[0.5, -1]")].flat(Infinity);
  if (row.length !== model.features || !row.every(value => Number.isFinite(value))) {
    const got = row.every(value => Number.isFinite(value)) ? `${row.length}`
      : `${JSON.stringify(row.find(value => !Number.isFinite(value)))} among them`;
    throw new Error(`expected ${model.features} numbers, got ${got}`);
  }
  return Float64Array.from(row);
}

// What follows the pointer, or the arrow keys, on a canvas of a model's pixels.
function makePen(canvas, ink, changed) {
  let at = null; // the last point of a stroke
  let cursor = null; // of the keyboard: {x, y, isDown}
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  const line = (x, y) => {
    Object.assign(pen, { strokeStyle: ink.value, lineCap: "round", lineJoin: "round" });
    pen.lineWidth = Math.max(canvas.width / 13, MIN_PEN);
    pen.beginPath();
    pen.moveTo(...at ?? [x, y]);
    pen.lineTo(x, y);
    pen.stroke();
    at = [x, y];
  };
  const place = event => {
    const box = canvas.getBoundingClientRect();
    return [(event.clientX - box.left) * canvas.width / box.width,
      (event.clientY - box.top) * canvas.height / box.height];
  };
  canvas.addEventListener("pointerdown", event => {
    canvas.setPointerCapture(event.pointerId);
    line(...place(event));
  });
  canvas.addEventListener("pointermove", event => at && event.buttons && line(...place(event)));
  for (const name of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(name, () => {
      if (at) changed();
      at = null;
    });
  }
  canvas.addEventListener("keydown", event => {
    const [x, y] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1],
      " ": [0, 0] }[event.key] ?? [];
    if (x === undefined) return;
    event.preventDefault();
    cursor ??= { x: canvas.width / 2, y: canvas.height / 2, isDown: false };
    if (event.key === " ") cursor.isDown = !cursor.isDown;
    const from = [cursor.x, cursor.y];
    cursor.x = Math.min(Math.max(cursor.x + x * canvas.width / 14, 0), canvas.width);
    cursor.y = Math.min(Math.max(cursor.y + y * canvas.height / 14, 0), canvas.height);
    if (cursor.isDown) {
      at = from;
      line(cursor.x, cursor.y);
      at = null;
      changed();
    }
    canvas.setAttribute("aria-label", `${canvas.dataset.name}: pen `
      + `${cursor.isDown ? "down" : "up"}, ${Math.round(100 * cursor.x / canvas.width)} % from the `
      + `left, ${Math.round(100 * cursor.y / canvas.height)} % from the top`);
  });
  return (width, height) => {
    cursor = null;
    Object.assign(canvas, { width, height });
    pen.fillStyle = "#000";
    pen.fillRect(0, 0, width, height);
    canvas.setAttribute("aria-label", canvas.dataset.name);
  };
}

/**
 * The controls of one end, in a fieldset: {root, field, show, row, say}.
 *
 * show() fits them to the model; row(signal) gives {data, note}, or null while nothing is given;
 * field() is what a complaint is about; say(text) tells about the row. changed() is called whenever
 * the row is another one.
 */
export function makeEnd(app, side, { name = side.toUpperCase(), seed, changed }) {
  const root = element("fieldset", { className: "end", id: `end-${side}` });
  root.innerHTML = html(side, name);
  const own = id => root.querySelector(`#${id}-${side}`);
  let given = {}; // by source: {row, note} of what the user gave
  let shownModel = null;
  let clear = null; // of the canvas that is drawn on

  const source = () => own("from").value;
  const field = () => own({ sample: "seed", hand: "hand", file: "file", json: "row" }[source()]);

  function choose(from) {
    own("from").value = from;
    for (const part of root.querySelectorAll("[data-from]")) {
      part.hidden = part.dataset.from !== from;
    }
  }

  function give(row, note) {
    given[source()] = { row, note };
    changed();
  }

  // An action of the user: what was said about the last one is past.
  const act = action => async event => {
    clearComplaints(root);
    try {
      await action(event);
    } catch (error) {
      app.fail(error, field());
    }
  };

  async function takeFile(file) {
    if (!file) return;
    choose("file");
    delete given.file;
    const { row, done } = await readPicture(file, app.model);
    const top = app.model.num_levels - 1;
    const isSwapped = own("invert").checked;
    give(isSwapped ? row.map(value => top - value) : row,
      `${file.name}: ${done}${isSwapped ? ", light and dark swapped" : ""}`);
  }

  function takeDrawing() {
    const { model } = app;
    give(readCanvas(own("hand"), model, cellOf(model)), "drawn by hand");
  }

  function clearDrawing() {
    const [, height, width] = app.model.event_shape;
    clear(width * cellOf(app.model), height * cellOf(app.model));
  }

  own("from").addEventListener("change", act(() => {
    choose(source());
    if (source() === "hand" && !given.hand) clearDrawing();
    changed();
  }));
  own("seed").addEventListener("change", act(changed));
  own("another").addEventListener("click", act(() => {
    own("seed").value = Number(own("seed").value) + 1;
    changed();
  }));
  own("hand").dataset.name = `Drawing of ${name}`;
  clear = makePen(own("hand"), own("ink"), takeDrawing);
  own("clear").addEventListener("click", act(() => {
    clearDrawing();
    takeDrawing();
  }));
  own("file").addEventListener("change", act(() => takeFile(own("file").files[0])));
  own("invert").addEventListener("change", act(() => takeFile(own("file").files[0])));
  own("use").addEventListener("click", act(() =>
    give(parseRow(own("row").value, app.model), "pasted")));
  root.addEventListener("dragover", event => hasPixels(app.model) && event.preventDefault());
  root.addEventListener("drop", act(event => {
    if (!hasPixels(app.model)) return;
    event.preventDefault();
    const { files } = event.dataTransfer;
    own("file").files = files; // for the box that swaps light and dark
    return takeFile(files[0]);
  }));

  async function sample(signal) {
    const text = own("seed").value;
    if (!own("seed").checkValidity()) throw new Error("expected a whole number, 0 or more");
    write({ [side]: text === String(seed) ? null : text });
    const { model } = app;
    const fields = { ...app.fields(), num_samples: 1, seed: Number(text) };
    const row = (await drawRows(fields, { shown: false, signal })).data;
    return { row: hasPixels(model) ? toLevels(row, model) : row, note: `seed ${text}` };
  }

  return {
    root,
    field,
    show() {
      const isOther = shownModel !== app.model.name;
      shownModel = app.model.name;
      own("seed").value = read(side, seed);
      const isPicture = hasPixels(app.model);
      for (const option of own("from").options) {
        option.hidden = option.disabled = { hand: !isPicture, file: !isPicture, json: isPicture }[
          option.value] ?? false;
      }
      own("ink-field").hidden = app.model.event_shape[0] === 1;
      own("picture").hidden = !isPicture;
      if (!isOther) return;
      given = {};
      own("file").value = own("row").value = own("about").textContent = "";
      own("invert").checked = false;
      choose("sample");
    },
    async row(signal) {
      const found = source() === "sample" ? await sample(signal) : given[source()] ?? null;
      own("picture").hidden = !found || !hasPixels(app.model);
      if (!own("picture").hidden) {
        drawPicture(own("picture"), found.row, app.model);
        own("picture").setAttribute("aria-label", `${name}: ${found.note}`);
      }
      return found;
    },
    say(text) { own("about").textContent = text; },
  };
}
