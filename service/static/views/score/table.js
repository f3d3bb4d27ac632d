// Rows with their scores, sorted by a button in each head, a page of them at a time.

import { element } from "../../page/dom.js";
import { ask } from "./files.js";

const ROWS = 20;

export const short = number => number === null || Number.isNaN(number) ? "none"
  : Number(number.toPrecision(4)).toString();

const because = reasons => reasons.slice(0, 2).filter(reason => reason.nats > 0 || reason.nats === null)
  .map(reason => `${reason.feature} ${short(reason.value)}, expected ${short(reason.expected)}`)
  .join("; ");

/**
 * A table in an element.
 *
 * show(content) shows it, from its first page: {count, scores, isFlagged(row), hasP, extra: columns of
 * the file, names: of rows or null}. onPage(rows) is called with the rows of each page, and onChoose
 * with the row that is to be explained; told(row, reasons) has why a row was flagged, once it is known.
 */
export function scoreTable(root, { onPage, onChoose }) {
  const table = element("table", { id: "score-table" });
  const range = element("span", { id: "score-range", role: "status" });
  const before = element("button", { type: "button", id: "score-before", textContent: "Previous" });
  const after = element("button", { type: "button", id: "score-after", textContent: "Next" });
  root.replaceChildren(table, element("p", {}, before, " ", range, " ", after));
  let content = null;
  let order = [];
  let page = 0;
  let sorted = { by: "p_value", descends: false };
  let chosen = null;
  const reasons = new Map();

  const rowsOfPage = () => Array.from(order.slice(page * ROWS, (page + 1) * ROWS));

  function heads() {
    const known = [["row", "row"], ...content.names ? [[null, "file"]] : [], ["score", "score"],
      ...content.hasP ? [["p_value", "p"]] : [], [null, "flagged"],
      ...content.extra.map(({ name }) => [null, name]), [null, "because of"]];
    return known.map(([by, text]) => {
      if (!by) return element("th", { scope: "col", textContent: text });
      const isSorted = sorted.by === by;
      const button = element("button", { type: "button", textContent: text });
      button.addEventListener("click", () =>
        sort({ by, descends: isSorted ? !sorted.descends : by === "score" }));
      return element("th", { scope: "col", "aria-sort": !isSorted ? "none"
        : sorted.descends ? "descending" : "ascending" }, button);
    });
  }

  function line(row) {
    const { scores, names, extra, hasP } = content;
    const choose = element("button", { type: "button", textContent: row,
      "aria-label": `row ${row}: say why`, "aria-pressed": String(row === chosen) });
    choose.addEventListener("click", () => pick(row));
    const why = scores.reasons.get(row) ?? because(reasons.get(row) ?? []);
    const texts = [...names ? [names[row]] : [], short(scores.score[row]),
      ...hasP ? [short(scores.p_value[row])] : [], content.isFlagged(row) ? "flagged" : "",
      ...extra.map(({ values }) => values[row]), why];
    const made = element("tr", { className: content.isFlagged(row) ? "flagged" : "" },
      element("td", {}, choose), ...texts.map(text => element("td", { textContent: text })));
    made.dataset.row = row;
    return made;
  }

  function draw() {
    const rows = rowsOfPage();
    const { activeElement } = document;
    const focused = table.contains(activeElement) ? activeElement.textContent : null;
    const head = heads();
    table.style.setProperty("--columns", head.length - 1); // the last is below them on a phone
    table.replaceChildren(element("thead", {}, element("tr", {}, ...head)),
      element("tbody", {}, ...rows.map(line)));
    const first = page * ROWS;
    range.textContent = `${first + 1} to ${first + rows.length} of `
      + content.count.toLocaleString("en");
    before.disabled = page === 0;
    after.disabled = first + ROWS >= content.count;
    [...table.querySelectorAll("button")].find(({ textContent }) => textContent === focused)?.focus();
  }

  async function sort(how) {
    sorted = how;
    const { score, p_value } = content.scores;
    const rank = Float64Array.from(score, (value, row) =>
      Number.isNaN(value) && !Number.isNaN(p_value[row]) ? Infinity : value);
    const first = how.by === "p_value" ? p_value : how.by === "score" ? rank
      : Float64Array.from(score, (_, row) => row);
    const then = how.by === "p_value" ? rank : null;
    order = await ask("order", { first, then, descends: how.descends });
    page = 0;
    draw();
    onPage(rowsOfPage());
  }

  function pick(row) {
    chosen = row;
    for (const button of table.querySelectorAll("td button")) {
      button.setAttribute("aria-pressed", String(button.textContent === String(row)));
    }
    onChoose(row);
  }

  function turn(step) {
    page += step;
    draw();
    onPage(rowsOfPage());
    if (step < 0 ? before.disabled : after.disabled) (step < 0 ? after : before).focus();
  }
  before.addEventListener("click", () => turn(-1));
  after.addEventListener("click", () => turn(1));

  return {
    async show(given) {
      content = given;
      chosen = null;
      reasons.clear();
      await sort(content.hasP ? { by: "p_value", descends: false } : { by: "score", descends: true });
      return order;
    },
    redraw: draw,
    pick,
    rowsOfPage,
    tell(row, told) {
      reasons.set(row, told);
      const made = table.querySelector(`tr[data-row="${row}"]`);
      if (made) made.lastChild.textContent = because(told);
    },
    told: row => reasons.get(row),
    get order() { return order; },
  };
}
