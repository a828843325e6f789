// edgeleaf in a page or a worker: URLs, onnxruntime-web's WebAssembly, which reports nothing to anyone.
import { Documents } from "./documents.js";
import { Encoder } from "./encoder.js";
import { EdgeleafError } from "./errors.js";
import { download } from "./files.js";

const platform = {
  read: download,

  async runtime(threads, { ort, wasmPaths }) {
    const found = await (ort ?? import("onnxruntime-web/wasm"));
    if (wasmPaths !== undefined) found.env.wasm.wasmPaths = wasmPaths;
    found.env.wasm.numThreads = threads;
    return { ort: found, settings: { executionProviders: ["wasm"] } };
  },
};

export class QueryEncoder extends Encoder {
  static load(url, options = {}) {
    return this.from(platform, url, options);
  }
}

export class DocumentIndex extends Documents {
  static load(url, options = {}) {
    return this.from(platform, url, options);
  }
}

export { EdgeleafError };
