// Draw samples: pictures, points of the plane, or rows of a table.

import { call, callJson } from "../page/api.js";
import { byId, clearComplaints } from "../page/dom.js";
import { isPicture, isPlane } from "../page/shapes.js";
import { bind } from "../page/state.js";

const HTML = `
  <h2>Draw samples</h2>
  <form id="draw">
    <label>how many <input type="number" id="count" name="count" min="1" required></label>
    <label>temperature <input type="number" id="temperature" name="temperature" min="0" step="0.05"
      value="1" required></label>
    <label>seed <input type="number" id="seed" name="seed" min="0" placeholder="random"></label>
    <button>Draw</button>
  </form>
  <p id="drawn" role="status"></p>
  <img id="picture" alt="samples" hidden>
  <canvas id="plot" width="480" height="480" role="img" aria-label="samples as points" hidden></canvas>
  <pre id="table" tabindex="0" aria-label="samples as rows"></pre>`;

function plot(canvas, points) {
  const pen = canvas.getContext("2d");
  pen.clearRect(0, 0, canvas.width, canvas.height);
  const reach = 1.05 * Math.max(...points.map(([x, y]) => Math.max(Math.abs(x), Math.abs(y))));
  pen.fillStyle = "#4169e199";
  for (const [x, y] of points) {
    pen.fillRect((1 + x / reach) * canvas.width / 2, (1 - y / reach) * canvas.height / 2, 2, 2);
  }
  canvas.hidden = false;
}

async function draw(app) {
  const { model } = app;
  const seed = byId("seed").value;
  const fields = {
    ...app.fields(),
    num_samples: Number(byId("count").value),
    temperature: Number(byId("temperature").value),
    ...seed === "" ? {} : { seed: Number(seed) },
  };
  const started = performance.now();
  let drawn;
  if (isPicture(model)) {
    const answer = await call("sample", { ...fields, scale: 3 }, { accept: "image/png" });
    drawn = answer.headers.get("X-Seed");
    URL.revokeObjectURL(byId("picture").src);
    byId("picture").src = URL.createObjectURL(await answer.blob());
    byId("picture").hidden = false;
  } else {
    const answer = await callJson("sample", fields);
    drawn = answer.seed;
    if (isPlane(model)) plot(byId("plot"), answer.x.filter(row => row !== null));
    else byId("table").textContent = answer.x.map(row => JSON.stringify(row)).join("\n");
  }
  byId("drawn").textContent = `seed ${drawn}, ${Math.round(performance.now() - started)} ms`;
}

function show({ model }) {
  byId("count").value = isPicture(model) ? 16 : isPlane(model) ? 2000 : 8;
  for (const id of ["picture", "plot"]) byId(id).hidden = true;
  for (const id of ["drawn", "table"]) byId(id).textContent = "";
}

export const samples = {
  id: "samples",
  title: "Samples",
  unfit: () => null,
  mount(root, app) {
    root.innerHTML = HTML;
    for (const id of ["temperature", "seed"]) bind(byId(id));
    byId("draw").addEventListener("submit", event => {
      event.preventDefault();
      clearComplaints(root);
      draw(app).catch(error => app.fail(error, byId("count")));
    });
    return { show: () => show(app) };
  },
};
