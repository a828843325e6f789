// Encodes queries and searches the index, away from the page's own thread.
import * as ort from "/ort/ort.wasm.min.mjs";

import { download, feed } from "./encoder.js";
import { applyPca, checkSpace, nearest, readNpy } from "./vectors.js";

const MODEL = "/pack/query_encoder.onnx";
const WASM = "/ort/ort-wasm-simd-threaded.wasm";
const VECTORS = "/index/vectors.npy";
const PCA = "/index/pca.npy";
const DOCUMENTS = "/index/documents.jsonl";
const HITS = 10;
const WARMUPS = 3;

let session, matrix, pca, documents;

onmessage = async ({ data }) => {
  try {
    if (data.type === "load") postMessage({ type: "ready", facts: await load(data.threads) });
    else if (data.type === "query") postMessage({ type: "hits", text: data.text, ...(await search(data.text)) });
  } catch (error) {
    postMessage({ type: "error", message: error.message });
  }
};

async function load(threads) {
  const [bundle, header] = await Promise.all([json("/pack/edgeleaf.json"), json("/index/index.json")]);
  if (![1, 2].includes(header?.schema_version)) {
    throw new Error("The index folder has no index.json that this page can read.");
  }
  if (bundle) checkSpace(bundle.space, header.space);

  const start = performance.now();
  const short = (header.dims ?? header.space.dim) !== header.space.dim;
  const [model, wasm, vectors, lines, axes] = await downloads([MODEL, WASM, VECTORS, DOCUMENTS, ...(short ? [PCA] : [])]);
  matrix = readNpy(vectors);
  pca = short ? readNpy(axes, "pca.npy") : null;
  if (pca && pca.dim !== matrix.dim) {
    throw new Error(`The index is damaged: its axes give ${pca.dim} numbers, its vectors have ${matrix.dim}.`);
  }
  documents = new TextDecoder().decode(lines).split("\n").filter(Boolean).map((line) => JSON.parse(line));
  if (documents.length !== matrix.rows) {
    throw new Error(`The index is damaged: ${matrix.rows} vectors for ${documents.length} documents.`);
  }

  postMessage({ type: "preparing" });
  const downloaded = performance.now();
  ort.env.wasm.wasmPaths = "/ort/";
  ort.env.wasm.wasmBinary = wasm;
  ort.env.wasm.numThreads = threads;
  session = await ort.InferenceSession.create(model, { executionProviders: ["wasm"] });
  const [vector] = await encode("");
  const width = pca ? pca.rows : matrix.dim;
  if (vector.length !== width) throw new Error(`The model gives ${vector.length} numbers, the index takes ${width}.`);
  for (let i = 0; i < WARMUPS; i++) await search("warm up");
  return {
    version: ort.env.versions.web,
    threads: ort.env.wasm.numThreads,
    modelBytes: model.length,
    wasmBytes: wasm.length,
    teacher: header.space.teacher,
    documents: documents.length,
    dim: matrix.dim,
    downloadMs: downloaded - start,
    prepareMs: performance.now() - downloaded,
  };
}

/** Download files in parallel; progress is reported once the size of each is known. */
async function downloads(urls) {
  const files = urls.map(() => ({ loaded: 0, total: 0 }));
  const sum = (key) => files.reduce((all, file) => all + file[key], 0);
  const progress = (i) => (loaded, total) => {
    files[i] = { loaded, total };
    if (files.every((file) => file.total)) {
      postMessage({ type: "progress", loaded: sum("loaded"), total: sum("total") });
    }
  };
  return Promise.all(urls.map((url, i) => download(url, progress(i))));
}

/** The vector of a text, and the milliseconds that it took from the string. */
async function encode(text) {
  const start = performance.now();
  const { embedding } = await session.run(feed(ort, session, [text]));
  return [embedding.data, performance.now() - start];
}

async function search(text) {
  const [vector, encodeMs] = await encode(text);
  const start = performance.now();
  const query = pca ? applyPca(pca, vector) : vector;
  const hits = nearest(matrix, query, HITS).map(({ row, score }) => ({ ...documents[row], score }));
  return { hits, encodeMs, searchMs: performance.now() - start };
}

/** A JSON file, or null if there is none. */
async function json(url) {
  const response = await fetch(url);
  return response.ok ? response.json() : null;
}
