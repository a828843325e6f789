// edgeleaf in Node: paths and URLs, onnxruntime-node, no telemetry.
import "./quiet.js";

import { readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";

import { Documents } from "./documents.js";
import { Encoder } from "./encoder.js";
import { EdgeleafError } from "./errors.js";
import { download } from "./files.js";

const platform = {
  async read(place, progress = () => {}) {
    if (/^https?:\/\//.test(place)) return download(place, progress);
    const path = place.startsWith("file:") ? fileURLToPath(place) : place;
    let bytes;
    try {
      bytes = await readFile(path);
    } catch (error) {
      const what = { ENOENT: "no such file", EISDIR: "a folder", EACCES: "may not be read" }[error.code];
      throw new EdgeleafError(`${path}: ${what ?? error.message}; give a bundle folder or a fused .onnx file`);
    }
    progress(bytes.length, bytes.length);
    return bytes;
  },

  async runtime(threads, { ort }) {
    let found;
    try {
      found = await (ort ?? import("onnxruntime-node"));
    } catch (error) {
      throw new EdgeleafError(`onnxruntime-node cannot be loaded; npm install onnxruntime-node (${error.message})`);
    }
    return { ort: found, settings: { intraOpNumThreads: threads, interOpNumThreads: 1, logSeverityLevel: 3 } };
  },
};

export class QueryEncoder extends Encoder {
  static load(urlOrPath, options = {}) {
    return this.from(platform, urlOrPath, options);
  }
}

export class DocumentIndex extends Documents {
  static load(urlOrPath, options = {}) {
    return this.from(platform, urlOrPath, options);
  }
}

export { EdgeleafError };
