// A small file server on this machine: serves only named paths, with the headers that allow a page threads.
import { createReadStream, statSync } from "node:fs";
import { createServer } from "node:http";
import { dirname, extname, join, normalize, sep } from "node:path";
import { pipeline } from "node:stream";
import { fileURLToPath } from "node:url";

import { InputError } from "./checks.mjs";

const HERE = dirname(fileURLToPath(import.meta.url));

const TYPES = {
  ".css": "text/css; charset=utf-8",
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".json": "application/json; charset=utf-8",
  ".jsonl": "application/x-ndjson; charset=utf-8",
  ".mjs": "text/javascript; charset=utf-8",
  ".svg": "image/svg+xml",
  ".wasm": "application/wasm",
};

/** Shared memory, and therefore threads, exist only in a page that is isolated from other origins. */
const ISOLATION = {
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cross-Origin-Embedder-Policy": "require-corp",
};

/** The page loads nothing from elsewhere, and this policy prevents it. */
const POLICY =
  "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; img-src 'self' data:; " +
  "object-src 'none'; base-uri 'none'; form-action 'none'";

/** Paths of the page, of the package edgeleaf and of onnxruntime-web, which every server here serves. */
export const PAGE = {
  "/": join(HERE, "page", "index.html"),
  "/page/": join(HERE, "page"),
  "/web/": join(HERE, "..", "web"),
  "/checks.mjs": join(HERE, "checks.mjs"),
  "/ort/": join(HERE, "node_modules", "onnxruntime-web", "dist"),
};

/**
 * Serve files and folders.
 *
 * @param {Record<string, string | {type: string, body: string}>} paths URL path to file or to {type, body}; or URL path
 *   that ends in "/" to folder
 * @param {object} [options]
 * @param {string} [options.host]
 * @param {number} [options.port] 0: any free one
 * @param {boolean} [options.isolated] send the headers that allow threads; without them, it is like any plain host
 * @returns {Promise<{url: string, close: () => void}>}
 */
export async function serve(paths, { host = "127.0.0.1", port = 0, isolated = true } = {}) {
  const server = createServer((request, response) => {
    const headers = { "Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff" };
    if (isolated) Object.assign(headers, ISOLATION);
    answer(request, response, headers, paths);
  });
  await new Promise((resolve, reject) => {
    server.once("error", (error) => reject(new InputError(`port ${port}: ${error.message}`)));
    server.listen(port, host, resolve);
  });
  const close = () => {
    server.close();
    server.closeAllConnections();
  };
  return { url: `http://${host === "0.0.0.0" ? "localhost" : host}:${server.address().port}/`, close };
}

function answer(request, response, headers, paths) {
  const file = fileOf(request.url, paths);
  if (file?.body !== undefined) {
    response.writeHead(200, { ...headers, "Content-Type": TYPES[file.type], "Cache-Control": "no-cache" });
    response.end(file.body);
    return;
  }
  const stat = file && statSync(file, { throwIfNoEntry: false });
  if (!stat?.isFile()) {
    response.writeHead(404, { ...headers, "Content-Type": "text/plain; charset=utf-8" });
    response.end("not found\n");
    return;
  }
  const tag = `"${stat.size.toString(36)}-${Math.round(stat.mtimeMs).toString(36)}"`;
  Object.assign(headers, {
    "Content-Type": TYPES[extname(file)] ?? "application/octet-stream",
    "Cache-Control": "no-cache",
    ETag: tag,
  });
  if (request.headers["if-none-match"] === tag) {
    response.writeHead(304, headers);
    response.end();
    return;
  }
  response.writeHead(200, { ...headers, "Content-Length": stat.size });
  if (request.method === "HEAD") response.end();
  else pipeline(createReadStream(file), response, () => {});
}

/** The content of a URL, or undefined. */
function fileOf(url, paths) {
  let path;
  try {
    path = decodeURIComponent(new URL(url, "http://localhost").pathname);
  } catch {
    return undefined;
  }
  if (path.includes("\0")) return undefined;
  if (!path.endsWith("/") && Object.hasOwn(paths, path)) return paths[path];
  if (path === "/") return paths["/"];
  const prefix = Object.keys(paths).find((key) => key !== "/" && key.endsWith("/") && path.startsWith(key));
  if (!prefix) return undefined;
  const file = normalize(join(paths[prefix], path.slice(prefix.length)));
  return file.startsWith(normalize(paths[prefix]) + sep) ? file : undefined;
}
