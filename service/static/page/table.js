// Tables: a head of columns, and lines that begin with a head of their own.

import { element } from "./dom.js";

const headCell = (text, scope) => element("th", { textContent: text, scope });
const line = ([first, ...others]) => element("tr", {}, headCell(first, "row"),
  ...others.map(text => element("td", { textContent: text })));

// A table that is wider than its place is scrolled, so the keyboard has to reach it.
const reached = new ResizeObserver(entries => {
  for (const { target } of entries) {
    if (target.scrollWidth > target.clientWidth) target.tabIndex = 0;
    else target.removeAttribute("tabindex");
  }
});

// Fill a table; each line is a list of texts.
export function fillTable(table, head, lines) {
  const heads = head.map(text => headCell(text, "col"));
  table.replaceChildren(...head.length ? [element("tr", {}, ...heads)] : [], ...lines.map(line));
  reached.unobserve(table); // so that it is looked at again, for what it holds now
  reached.observe(table);
}
