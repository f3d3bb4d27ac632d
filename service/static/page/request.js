// What was last asked, as a program: curl, Python or JavaScript that sends the same.

import { hasKey } from "./key.js";
import { byId } from "./dom.js";

const EXTENSIONS = { "application/x-npy": "npy", "image/png": "png", "image/jpeg": "jpg" };
const WANTED = { ...EXTENSIONS, "application/x-npz": "npz", "application/json": "json" };
// Longer bodies are a file beside the program.
const INLINE = 2000;

let last = null;

const isInline = request => typeof request.body === "string" && request.body.length <= INLINE;
const fileName = request => typeof request.body === "string" ? "request.json"
  : `rows.${EXTENSIONS[request.type]}`;
const address = request => new URL(request.path, document.baseURI).href;
const quoted = text => `'${text.replaceAll("'", "'\\''")}'`;

function headers(request) {
  const given = { "Content-Type": request.type, Accept: request.accept };
  return hasKey() ? { ...given, Authorization: "Bearer YOUR-KEY" } : given;
}

const LANGUAGES = {
  curl(request) {
    const parts = Object.entries(headers(request))
      .map(([name, value]) => `-H ${quoted(`${name}: ${value}`)}`);
    parts.push(isInline(request) ? `-d ${quoted(request.body)}`
      : `--data-binary @${fileName(request)}`);
    if (request.accept !== "application/json") parts.push(`-o answer.${WANTED[request.accept]}`);
    return `curl ${quoted(address(request))} \\\n  ${parts.join(" \\\n  ")}`;
  },
  Python(request) {
    const body = isInline(request) ? `content=${JSON.stringify(request.body)}`
      : `content=open("${fileName(request)}", "rb").read()`;
    const result = request.accept === "application/json" ? "print(answer.json())"
      : `open("answer.${WANTED[request.accept]}", "wb").write(answer.content)`;
    return `import httpx\n\nanswer = httpx.post(\n    ${JSON.stringify(address(request))},\n`
      + `    headers=${JSON.stringify(headers(request))},\n    ${body},\n)\n`
      + `answer.raise_for_status()\n${result}`;
  },
  JavaScript(request) {
    const [before, body] = isInline(request) ? ["", JSON.stringify(request.body)]
      : [`import { readFile } from "node:fs/promises";\n\n`,
        `await readFile("${fileName(request)}")`];
    const result = request.accept === "application/json" ? "await answer.json()"
      : "new Uint8Array(await answer.arrayBuffer())";
    return `${before}const answer = await fetch(${JSON.stringify(address(request))}, {\n`
      + `  method: "POST",\n  headers: ${JSON.stringify(headers(request))},\n  body: ${body},\n});\n`
      + `if (!answer.ok) throw new Error(await answer.text());\nconsole.log(${result});`;
  },
};

function draw() {
  if (!last || !byId("request").open) return;
  byId("program").textContent = LANGUAGES[byId("language").value](last);
  const link = byId("body-file");
  if (link.href) URL.revokeObjectURL(link.href);
  link.hidden = isInline(last);
  if (link.hidden) return link.removeAttribute("href");
  link.href = URL.createObjectURL(new Blob([last.body], { type: last.type }));
  link.download = fileName(last);
  link.textContent = `Download ${fileName(last)}, which it sends`;
}

// Show this request from now on.
export function record(request) {
  last = request;
  draw();
}

// Nothing was asked of the model that is looked at now.
export function forgetRequest() {
  last = null;
  byId("program").textContent = "Nothing was asked yet.";
  byId("body-file").hidden = true;
}

export function watchRequest() {
  byId("request").addEventListener("toggle", draw);
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
