// The parts of the page: a bundle's model, an index, and example queries.
import { readFileSync, statSync } from "node:fs";
import { join } from "node:path";

import { ENCODER, InputError } from "./checks.mjs";
import { PAGE } from "./server.mjs";

const EXAMPLES = 4;
const EXAMPLE_WORDS = [3, 8];
const QUESTION = /^(how|what|when|where|which|who|why)\b/i;

/**
 * The paths that the page requests.
 *
 * @param {string} bundle a bundle's folder
 * @param {string} index an index's folder
 * @param {string} [examples] a file with one query per line; without it, queries that the bundle was certified on
 * @returns {Record<string, string | {type: string, body: string}>}
 */
export function pagePaths(bundle, index, examples) {
  const exists = (file) => statSync(file, { throwIfNoEntry: false })?.isFile();
  for (const name of [ENCODER, "edgeleaf.json"]) {
    if (!exists(join(bundle, name))) throw new InputError(`${bundle}: no ${name} in it`);
  }
  if (!exists(join(index, "index.json"))) {
    throw new InputError(`${index} is not an index; make one with: edgeleaf index ${bundle} DOCUMENTS -o ${index}`);
  }
  const queries = examples ? lines(examples) : heldOutQueries(join(bundle, "held_out.jsonl"));
  return {
    ...PAGE,
    "/pack/query_encoder.onnx": join(bundle, ENCODER),
    "/pack/edgeleaf.json": join(bundle, "edgeleaf.json"),
    "/index/": index,
    "/examples.json": { type: ".json", body: JSON.stringify(queries.slice(0, EXAMPLES)) },
  };
}

function heldOutQueries(file) {
  if (!statSync(file, { throwIfNoEntry: false })) return [];
  const [fewest, most] = EXAMPLE_WORDS;
  const words = (text) => text.split(" ").length;
  const queries = lines(file)
    .map((line) => JSON.parse(line))
    .filter((row) => row.kind === "query" && words(row.text) >= fewest && words(row.text) <= most)
    .map((row) => row.text);
  return [...queries.filter((text) => QUESTION.test(text)), ...queries.filter((text) => !QUESTION.test(text))];
}

function lines(file) {
  if (!statSync(file, { throwIfNoEntry: false })?.isFile()) throw new InputError(`${file}: no such file`);
  return readFileSync(file, "utf8").split("\n").map((line) => line.trim()).filter(Boolean);
}
