// DocumentIndex: a folder that `edgeleaf index` wrote, and exact search in it.
import { EdgeleafError } from "./errors.js";
import { inside, json, readAll } from "./files.js";
import { applyPca, nearest, readNpy } from "./vectors.js";

const HEADER = "index.json";
const READABLE = [1, 2];
const NAMES = ["teacher", "revision"]; // of the teacher; they do not tell spaces apart
const LATER = ["tokenizer_sha256", "attention"]; // not compared where one of the two does not record them

/** Documents that the teacher encoded. node.js and browser.js give it `load`, which makes one. */
export class Documents {
  #matrix;
  #pca;

  constructor(space, documents, matrix, pca) {
    this.space = space;
    this.documents = documents;
    this.dim = matrix.dim;
    this.#matrix = matrix;
    this.#pca = pca;
  }

  static async from(platform, place, { progress } = {}) {
    const folder = String(place);
    const header = json(await platform.read(inside(folder, HEADER)), HEADER);
    if (!READABLE.includes(header.schema_version) || typeof header.space?.dim !== "number") {
      throw new EdgeleafError(`${folder} has no ${HEADER} that this package can read; make it again: edgeleaf index`);
    }
    const short = (header.dims ?? header.space.dim) !== header.space.dim;
    const names = ["vectors.npy", "documents.jsonl", ...(short ? ["pca.npy"] : [])];
    const places = names.map((name) => inside(folder, name));
    const [vectors, lines, axes] = await readAll(platform, places, progress);
    const matrix = readNpy(vectors);
    const pca = short ? readNpy(axes, "pca.npy") : null;
    if (pca && pca.dim !== matrix.dim) {
      throw new EdgeleafError(`The index is damaged: its axes give ${pca.dim} numbers, its vectors have ${matrix.dim}.`);
    }
    if ((pca ? pca.rows : matrix.dim) !== header.space.dim) {
      throw new EdgeleafError(`The index is damaged: it is not for vectors of ${header.space.dim} numbers.`);
    }
    const rows = new TextDecoder().decode(lines).split("\n").filter(Boolean);
    const documents = rows.map((line, row) => json(line, `documents.jsonl, line ${row + 1}`));
    if (documents.length !== matrix.rows) {
      throw new EdgeleafError(`The index is damaged: ${matrix.rows} vectors for ${documents.length} documents.`);
    }
    return new this(header.space, documents, matrix, pca);
  }

  search(vectors, { space, k = 10 }) {
    if (!Number.isInteger(k) || k < 1) throw new EdgeleafError(`k is ${k}; a whole number from 1 is needed`);
    checkSpace(space, this.space);
    return vectors.map((vector) => {
      if (vector.length !== this.space.dim) {
        throw new EdgeleafError(`a vector has ${vector.length} numbers; the index takes ${this.space.dim}`);
      }
      const query = this.#pca ? applyPca(this.#pca, vector) : vector;
      return nearest(this.#matrix, query, k).map(({ row, score }) => ({ ...this.documents[row], score }));
    });
  }
}

/**
 * Throw an error if the queries of a model cannot search an index. As in Python, the name under which the teacher was
 * found does not matter; its weights, tokenizer, pooling, prompts and width do.
 *
 * @param {object} model the space of the queries
 * @param {object} index the space of the index
 */
export function checkSpace(model, index) {
  if (typeof model !== "object" || model === null) {
    throw new EdgeleafError("search needs the space of the queries: search(vectors, { space: encoder.space })");
  }
  const keys = [...new Set([...Object.keys(model), ...Object.keys(index)])];
  const unsaid = (key) => LATER.includes(key) && (model[key] ?? index[key] ?? null) !== null && !(model[key] && index[key]);
  const other = keys.filter(
    (key) => !NAMES.includes(key) && (model[key] ?? null) !== (index[key] ?? null) && !unsaid(key),
  );
  if (!other.length) return;
  const differences = other.map((key) => `${key}: ${short(model[key])} here, ${short(index[key])} in the index`);
  throw new EdgeleafError(
    `This model cannot search this index: the two are of different vector spaces (${differences.join("; ")}). ` +
      "Encode the documents again with this bundle: edgeleaf index BUNDLE DOCUMENTS -o INDEX",
  );
}

function short(value) {
  const long = typeof value === "string" && value.length > 24;
  return JSON.stringify(long ? `${value.slice(0, 12)}…` : value) ?? "nothing";
}
