// Encodes queries and searches the index, away from the page's own thread, with the package edgeleaf.
import * as ort from "/ort/ort.wasm.min.mjs";

import { DocumentIndex, QueryEncoder } from "/web/browser.js";
import { download } from "/web/files.js";

const WASM = "/ort/ort-wasm-simd-threaded.wasm";
const HITS = 10;
const WARMUPS = 3;

let encoder, index;

onmessage = async ({ data }) => {
  try {
    if (data.type === "load") postMessage({ type: "ready", facts: await load(data.threads) });
    else if (data.type === "query") postMessage({ type: "hits", text: data.text, ...(await search(data.text)) });
  } catch (error) {
    postMessage({ type: "error", message: error.message });
  }
};

async function load(threads) {
  const start = performance.now();
  const [onModel, onIndex, onWasm] = progress(3);
  let downloaded, wasmBytes;
  const runtime = download(WASM, onWasm).then((wasm) => {
    wasmBytes = wasm.length;
    ort.env.wasm.wasmBinary = wasm;
    postMessage({ type: "preparing" });
    downloaded = performance.now();
    return ort;
  });
  [index, encoder] = await Promise.all([
    DocumentIndex.load("/index/", { progress: onIndex }),
    QueryEncoder.load("/pack/", { ort: runtime, threads, wasmPaths: "/ort/", progress: onModel }),
  ]);
  for (let i = 0; i < WARMUPS; i++) await search("warm up");
  return {
    version: ort.env.versions.web,
    threads: ort.env.wasm.numThreads,
    modelBytes: encoder.bytes,
    wasmBytes,
    teacher: index.space.teacher,
    documents: index.documents.length,
    dim: index.dim,
    downloadMs: downloaded - start,
    prepareMs: performance.now() - downloaded,
  };
}

/** Functions that report the progress of several downloads as one, as far as their sizes are known. */
function progress(count) {
  const files = Array.from({ length: count }, () => ({ loaded: 0, total: 0 }));
  const sum = (key) => files.reduce((all, file) => all + file[key], 0);
  return files.map((_, i) => (loaded, total) => {
    files[i] = { loaded, total };
    postMessage({ type: "progress", loaded: sum("loaded"), total: sum("total") });
  });
}

async function search(text) {
  const start = performance.now();
  const vectors = await encoder.encode([text]);
  const encoded = performance.now();
  const [hits] = index.search(vectors, { space: encoder.space, k: HITS });
  return { hits, encodeMs: encoded - start, searchMs: performance.now() - encoded };
}
