// Tables: a head of columns, and lines that begin with a head of their own.

import { element } from "./dom.js";

const headCell = (text, scope) => element("th", { textContent: text, scope });
const line = ([first, ...others]) => element("tr", {}, headCell(first, "row"),
  ...others.map(text => element("td", { textContent: text })));

// Fill a table; each line is a list of texts.
export function fillTable(table, head, lines) {
  const heads = head.map(text => headCell(text, "col"));
  table.replaceChildren(...head.length ? [element("tr", {}, ...heads)] : [], ...lines.map(line));
}
