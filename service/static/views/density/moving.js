// The point that is dragged, in x or in z: the other one follows, and the numbers with them.

import { byId, clearComplaints } from "../../page/dom.js";
import { featureNames } from "../../page/shapes.js";
import { write } from "../../page/state.js";
import { isWhole } from "./picture.js";
import { addUp, decode, latest, lookUp } from "./point.js";
import { rounded } from "./row.js";

export const short = value => Number.isFinite(value) ? String(rounded(value)) : "none";
export const nats = value => value === -Infinity ? "−∞" : Number.isNaN(value) ? "none"
  : Math.abs(value) < 1e6 ? value.toFixed(4) : value.toPrecision(5);

// views: {picture, latent}, known once they are made. signal(): of the calls that are made.
export function makeMoving(app, seen, views, signal) {
  let isHeld = false;
  let mover = "x"; // where the point was moved last: an answer about the other one comes too late

  const names = () => seen.pair.map(index => featureNames(app.model)[index]);
  const isPlane = () => app.model.features === 2;

  function showNumbers({ x, base, logDet, logProb, off }) {
    const parts = (off ? null : addUp(logProb, logDet)) ?? [base, logDet, logProb].map(nats);
    ["density-base", "density-log-det", "density-log-p"].forEach((id, index) => {
      byId(id).textContent = parts[index];
    });
    byId("density-off").textContent = off ? `These do not add up: they differ by ${short(off)} nats, `
      + "which is more than the model's stated error. Do not rely on its log p here." : "";
    const { features } = app.model;
    const half = isPlane() ? "" : features % 2 ? `${features}/2 · ` : `${features / 2} · `;
    byId("density-formula").textContent = `−|z|²/2 − ${half}ln 2π`;
    const where = names().map((name, side) => `${name} ${short(x[seen.pair[side]])}`).join(", ");
    const text = `${where}: log p ${nats(logProb)} nats`;
    byId("density-status").textContent = text;
    byId("density-x").setAttribute("aria-label", `Map of the density. The point is at ${text}. `
      + "Arrow keys move it, plus and minus zoom, W A S D pan, 0 shows all.");
  }

  function showLatent(z) {
    const text = z ? `z1 ${z[0].toFixed(4)}, z2 ${z[1].toFixed(4)}` : "none: x has no latent";
    byId("density-z-text").textContent = text;
    byId("density-z").setAttribute("aria-label",
      `The base density over z. The point is at ${text}. Arrow keys move it.`);
    views.latent.show(z);
  }

  function place() {
    views.picture.plane.point = seen.pair.map(index => seen.row[index]);
    views.picture.plane.draw();
  }

  // The field and the address, once the point is let go of.
  function keep() {
    clearComplaints(byId("view-density"));
    byId("density-row").value = JSON.stringify(seen.row.map(rounded));
    write({ row: byId("density-row").value });
  }

  // Show what belongs to a latent that was moved to, or, without one, to the row.
  const follow = latest(async (moved, until) => {
    if (moved) {
      const x = await decode(app, moved, until);
      if (mover !== "z") return;
      if (x === null) throw new Error("this latent has no x");
      seen.row = x.map(rounded);
      place();
      if (!isHeld) keep();
    }
    const found = await lookUp(app, seen.row, until);
    showNumbers(found);
    if (!isPlane()) views.latent.showBars(found.z ?? []);
    else if (mover === "x") showLatent(found.z);
  });

  return {
    place,
    names,

    // Look up the row that there is.
    lookAt() {
      mover = "x";
      return follow(null, signal());
    },

    toX(at) {
      [isHeld, mover] = [true, "x"];
      at.forEach((value, side) => {
        const index = seen.pair[side];
        seen.row[index] = isWhole(app.model, index) ? Math.round(value) : rounded(value);
      });
      place();
      return follow(null, signal());
    },

    toZ(z) {
      [isHeld, mover] = [true, "z"];
      showLatent(z);
      return follow(z, signal());
    },

    async release() {
      isHeld = false;
      if (mover === "x") keep();
      else await follow(views.latent.plane.point, signal());
    },
  };
}
