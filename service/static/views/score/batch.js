// The rows that are looked at: of which model and class they are scored, and what came of it.

import { emptyScores, qValues } from "./scoring.js";

const keyOf = (model, fields) => JSON.stringify([model.name, model.version, fields]);

export class Batch {
  #work = new AbortController();
  #judged = null; // what is compared with the rate: p-values or q-values, by row
  #rate = 0;
  q = null;
  byP = null; // rows by their p, once all are scored
  calibration = null; // what GET /models/NAME/calibration says at the rate

  // The model and its class stay as they are now, whatever is chosen on the page meanwhile.
  constructor(app) {
    this.model = app.model;
    this.fields = app.fields();
  }

  get signal() {
    return this.#work.signal;
  }

  // Read, score, explain and save no more of it.
  giveUp() {
    this.#work.abort();
  }

  isOf(app) {
    return keyOf(this.model, this.fields) === keyOf(app.model, app.fields());
  }

  /**
   * Take what was read: {rows or files, count, header, faults, notes, shown, others, lines, names}.
   *
   * lines: of a file of text, where each row begins; names: of the files of pictures.
   */
  fill(read) {
    this.read = read;
    Object.assign(this, { names: null, files: null, rows: null }, read);
    this.scores = emptyScores(read.count);
    for (const { row, reason } of read.faults) this.scores.reasons.set(row, reason);
  }

  // A row, and where in the file it is.
  nameOf(row) {
    return `row ${row}${this.lines ? ` (line ${this.lines[row]})` : ""}`;
  }

  // Flag rows by a rate from now on; nothing is scored again.
  decide(rate, isFdr) {
    const { p_value: p } = this.scores;
    this.q = isFdr ? qValues(p, this.byP) : null;
    this.#judged = !this.model.calibration ? null : this.q ?? p;
    this.#rate = rate;
  }

  // No comparison holds for NaN: a row without a number is not flagged.
  isFlagged(row) {
    return this.#judged !== null && this.#judged[row] <= this.#rate;
  }

  get canExplain() {
    return !this.files && this.model.event_shape.length === 1 && this.model.calibration !== null;
  }
}
