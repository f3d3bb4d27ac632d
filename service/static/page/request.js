// What was asked last, as programs: curl, Python or JavaScript that sends the same.

import { hasKey } from "./key.js";
import { byId } from "./dom.js";
import { short } from "./numbers.js";

const EXTENSIONS = { "application/x-npy": "npy", "image/png": "png", "image/jpeg": "jpg" };
const WANTED = { ...EXTENSIONS, "application/x-npz": "npz", "application/json": "json" };
// Answers that are read on a screen.
const TEXTS = ["application/json", "text/plain"];
// Longer bodies are a file beside the program.
const INLINE = 2000;
const MAX_KEPT = 8;
const MAX_KEPT_BYTES = 2e7; // of the bodies of all but the newest

let asked = []; // the last requests, newest first

const isGet = request => request.body === undefined;
const isInline = request => typeof request.body === "string" && request.body.length <= INLINE;
const sizeOf = request => request.body?.length ?? 0;
const fileName = request => typeof request.body === "string" ? "request.json"
  : `rows.${EXTENSIONS[request.type]}`;
const address = request => new URL(request.path, document.baseURI).href;
const quoted = text => `'${text.replaceAll("'", "'\\''")}'`;

function headers(request) {
  const given = {
    ...isGet(request) ? {} : { "Content-Type": request.type }, Accept: request.accept,
  };
  return hasKey() ? { ...given, Authorization: "Bearer YOUR-KEY" } : given;
}

const LANGUAGES = {
  curl(request) {
    const parts = Object.entries(headers(request))
      .map(([name, value]) => `-H ${quoted(`${name}: ${value}`)}`);
    if (!isGet(request)) {
      parts.push(isInline(request) ? `-d ${quoted(request.body)}`
        : `--data-binary @${fileName(request)}`);
    }
    if (!TEXTS.includes(request.accept)) parts.push(`-o answer.${WANTED[request.accept]}`);
    return `curl ${quoted(address(request))} \\\n  ${parts.join(" \\\n  ")}`;
  },
  Python(request) {
    const body = isGet(request) ? "" : isInline(request)
      ? `    content=${JSON.stringify(request.body)},\n`
      : `    content=open("${fileName(request)}", "rb").read(),\n`;
    const result = request.accept === "application/json" ? "print(answer.json())"
      : TEXTS.includes(request.accept) ? "print(answer.text)"
        : `open("answer.${WANTED[request.accept]}", "wb").write(answer.content)`;
    return `import httpx\n\nanswer = httpx.${isGet(request) ? "get" : "post"}(\n`
      + `    ${JSON.stringify(address(request))},\n    headers=${JSON.stringify(headers(request))},\n`
      + `${body})\nanswer.raise_for_status()\n${result}`;
  },
  JavaScript(request) {
    const [before, body] = isInline(request) ? ["", JSON.stringify(request.body)]
      : [`import { readFile } from "node:fs/promises";\n\n`,
        `await readFile("${fileName(request)}")`];
    const result = request.accept === "application/json" ? "await answer.json()"
      : TEXTS.includes(request.accept) ? "await answer.text()"
        : "new Uint8Array(await answer.arrayBuffer())";
    const sent = isGet(request) ? "" : `  body: ${body},\n`;
    return `${isGet(request) ? "" : before}const answer = await fetch(${
      JSON.stringify(address(request))}, {\n${isGet(request) ? "" : '  method: "POST",\n'}`
      + `  headers: ${JSON.stringify(headers(request))},\n${sent}});\n`
      + `if (!answer.ok) throw new Error(await answer.text());\nconsole.log(${result});`;
  },
};

// Of rows that went in several requests, which these are.
function noted(request, language) {
  const program = LANGUAGES[language](request);
  if (!request.part) return program;
  const { first, last, count } = request.part;
  return `${language === "JavaScript" ? "//" : "#"} rows ${first} to ${last} of ${count}: each of the `
    + `requests above sends a part\n${program}`;
}

const titleOf = request => isGet(request) ? `GET ${request.path}`
  : `POST ${request.path.split("?")[0]}, ${short(sizeOf(request))} bytes`;

function draw() {
  const request = asked[byId("which").selectedIndex];
  if (!request || !byId("request").open) return;
  byId("program").textContent = noted(request, byId("language").value);
  const link = byId("body-file");
  if (link.href) URL.revokeObjectURL(link.href);
  link.hidden = isGet(request) || isInline(request);
  if (link.hidden) return link.removeAttribute("href");
  link.href = URL.createObjectURL(new Blob([request.body], { type: request.type }));
  link.download = fileName(request);
  link.textContent = `Download ${fileName(request)}, which it sends`;
}

// List what was asked, and show the newest; nothing is done while nobody looks.
function list() {
  if (!byId("request").open) return;
  byId("which").replaceChildren(...asked.map((request, index) =>
    new Option(`${index === 0 ? "the last" : index + 1}: ${titleOf(request)}`)));
  draw();
}

// Show this request from now on.
export function record(request) {
  let bytes = 0;
  asked = [request, ...asked.slice(0, MAX_KEPT - 1)
    .filter(older => (bytes += sizeOf(older)) <= MAX_KEPT_BYTES)];
  list();
}

// Nothing was asked of the model that is looked at now.
export function forgetRequest() {
  asked = [];
  byId("which").replaceChildren();
  byId("program").textContent = "Nothing was asked yet.";
  byId("body-file").hidden = true;
}

export function watchRequest() {
  byId("request").addEventListener("toggle", list);
  byId("which").addEventListener("change", draw);
  byId("language").addEventListener("change", draw);
  byId("copy").addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(byId("program").textContent);
      byId("copied").textContent = "copied";
    } catch {
      byId("copied").textContent = "this browser does not let the page copy: select the text";
    }
  });
}
