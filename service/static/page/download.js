// What the page has, as a file.

import { element } from "./dom.js";

const KEPT_MS = 60_000; // until then the browser has begun to save it

export function download(blob, name) {
  const link = element("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), KEPT_MS);
}
