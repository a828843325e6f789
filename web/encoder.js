// QueryEncoder: strings go in, unit vectors in the teacher's space come out. Runs in Node, in a page and in a worker.
import { EdgeleafError } from "./errors.js";
import { inside, json, metadataOf, readAll, sha256 } from "./files.js";
import { batches, checkTexts, feed, shortener } from "./texts.js";

const MANIFEST = "edgeleaf.json";
const ENCODER = "query_encoder.onnx";
const SCHEMA_VERSION = "1";

/** Encodes queries with a fused file. node.js and browser.js give it `load`, which makes one. */
export class Encoder {
  #ort;
  #session;
  #shortened;
  #running = Promise.resolve();

  constructor(ort, session, metadata, space, bytes) {
    this.#ort = ort;
    this.#session = session;
    this.#shortened = shortener(metadata.get("edgeleaf.long_texts"));
    this.space = space;
    this.dim = space.dim;
    this.window = Number(metadata.get("edgeleaf.max_length"));
    this.input = session.inputNames[0];
    this.bytes = bytes;
  }

  static async from(platform, place, { threads = 1, progress, ...options } = {}) {
    if (!Number.isInteger(threads) || threads < 1) {
      throw new EdgeleafError(`threads is ${threads}; a whole number from 1 is needed`);
    }
    const path = String(place);
    const isFile = path.endsWith(".onnx");
    const places = isFile ? [path] : [inside(path, ENCODER), inside(path, MANIFEST)];
    const [model, manifest] = await readAll(platform, places, progress);
    if (manifest) await check(model, json(manifest, places[1]), places[0]);
    const metadata = metadataOf(model);
    if (!metadata.has("edgeleaf.space")) {
      throw new EdgeleafError(`${places[0]} is not a fused query encoder, as edgeleaf run or edgeleaf export writes it`);
    }
    if (metadata.get("edgeleaf.schema_version") !== SCHEMA_VERSION) {
      const version = metadata.get("edgeleaf.schema_version");
      throw new EdgeleafError(`${places[0]}: schema version ${version}, this package reads ${SCHEMA_VERSION}`);
    }
    const space = json(metadata.get("edgeleaf.space"), `${places[0]}: its vector space`);
    const { ort, settings } = await platform.runtime(threads, options);
    let session;
    try {
      session = await ort.InferenceSession.create(model, settings);
    } catch (error) {
      throw new EdgeleafError(`${places[0]}: onnxruntime cannot open it: ${error.message}`);
    }
    return new this(ort, session, metadata, space, model.length);
  }

  async encode(texts) {
    checkTexts(texts);
    const run = this.#running.then(() => this.#encode(texts));
    this.#running = run.catch(() => {}); // a failed call does not stop those that wait
    return run;
  }

  async #encode(texts) {
    const vectors = new Array(texts.length);
    for (const places of batches(texts.map((text) => text.length))) {
      if (!this.#session) throw new EdgeleafError("this QueryEncoder is closed; load it again");
      const part = places.map((place) => this.#shortened(texts[place]));
      const { embedding } = await this.#session.run(feed(this.#ort, this.#session, part));
      const dim = embedding.dims[1];
      places.forEach((place, row) => (vectors[place] = embedding.data.slice(row * dim, (row + 1) * dim)));
    }
    return vectors;
  }

  async close() {
    await this.#running;
    const session = this.#session;
    this.#session = undefined;
    await session?.release();
  }
}

/** Throw an error if a model is not the one that a bundle's manifest describes. */
async function check(model, manifest, place) {
  if (String(manifest.schema_version) !== SCHEMA_VERSION) {
    const version = JSON.stringify(manifest.schema_version) ?? "none";
    throw new EdgeleafError(`${place}: its bundle has schema version ${version}, this package reads ${SCHEMA_VERSION}`);
  }
  const wanted = manifest.files?.[ENCODER];
  const found = await sha256(model);
  if (found !== undefined && found !== wanted) {
    throw new EdgeleafError(`${place}: damaged: its sha256 is not the one in ${MANIFEST}; copy the bundle again`);
  }
}
