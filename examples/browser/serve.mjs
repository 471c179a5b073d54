/** Serve this folder on http://127.0.0.1:8080 (or the port that is given), to this machine alone. */

import { createReadStream, statSync } from "node:fs";
import { createServer } from "node:http";
import { extname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";

const ROOT = fileURLToPath(new URL(".", import.meta.url));
const TYPES = {
  ".css": "text/css", ".html": "text/html", ".js": "text/javascript", ".mjs": "text/javascript",
  ".onnx": "application/octet-stream", ".wasm": "application/wasm",
};

/** The server, once it listens; `port` 0 takes any that is free. */
export function serve(port) {
  const server = createServer((request, response) => {
    let path;
    try {
      path = normalize(decodeURIComponent(new URL(request.url, "http://localhost").pathname)); // cannot leave "/"
    } catch {
      response.writeHead(400).end();
      return;
    }
    const file = join(ROOT, path.endsWith("/") ? `${path}index.html` : path);
    // A NUL cannot be in a name: statSync throws for it.
    if (path.includes("\0") || !statSync(file, { throwIfNoEntry: false })?.isFile()) {
      response.writeHead(404).end("not found");
      return;
    }
    const content = createReadStream(file);
    content.once("error", () => (response.headersSent ? response.destroy() : response.writeHead(403).end("not readable")));
    content.once("open", () => {
      response.writeHead(200, { "content-type": TYPES[extname(file)] ?? "text/plain", "cache-control": "no-cache" });
      content.pipe(response);
    });
  });
  return new Promise((resolve, reject) => {
    server.once("error", reject).listen(port, "127.0.0.1", () => resolve(server));
  });
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const port = Number(process.argv[2] ?? 8080);
  const problem = Number.isInteger(port) && port >= 0 && port < 65536 ? null : "is no port";
  const server = problem ?? (await serve(port).catch((error) => (error.code === "EADDRINUSE" ? "is in use" : error.message)));
  if (typeof server === "string") {
    console.error(`error: port ${process.argv[2] ?? port} ${server}; name another: node serve.mjs 8081`);
    process.exit(1);
  }
  console.log(`http://127.0.0.1:${server.address().port}`);
}
