// The checks of a pack (tests/ports.py), for any JavaScript runtime: golden vectors, token ids of every set of texts.
import { feed } from "../web/texts.js";

export const ENCODER = "query_encoder.onnx";
export const TOKENIZER = "tokenizer.onnx";
export const GOLDEN = "golden.jsonl";

const BATCH = 64;
const NORM_TOLERANCE = 1e-3;
const TIMED_TOKENS = [12, 16];
const WARMUPS = 20;
const RUNS = 100;
const EXAMPLES = 3;

/** The pack is not in the format that tests/ports.py writes. */
export class InputError extends Error {}

/**
 * Run all checks.
 *
 * @param {object} host
 * @param {object} host.ort onnxruntime-node or onnxruntime-web
 * @param {(name: string) => Promise<object>} host.open a session of a file of the pack
 * @param {(name: string) => Promise<object>} host.load a QueryEncoder of a file of the pack
 * @param {(name: string) => AsyncIterable<string>} host.lines the lines of a file of the pack
 * @param {string[]} host.sets names of the files in parity/
 * @returns {Promise<{report: object, passed: boolean, examples: string[]}>} the report as tests/ports.py describes it,
 *   whether everything passed, and the first few mismatches in words
 */
export async function check({ ort, open, load, lines, sets }) {
  const start = performance.now();
  const encoder = await load(ENCODER);
  const loadMs = performance.now() - start;
  const session = await open(ENCODER);
  const tokenizer = await open(TOKENIZER);
  const examples = [];

  const [header, ...entries] = await goldenEntries(lines(GOLDEN));
  const golden = await checkGolden(ort, encoder, session, tokenizer, entries, header.cosine_min, examples);
  // null for packs of older files, which would end this process.
  golden.empty_batch = header.empty_batch ? await emptyBatch(ort, session, entries[0].embedding.length) : null;
  const near = golden.cosine_mismatches === 0 && golden.cosine_mean >= (header.cosine_mean_min ?? 0);
  const parity = {};
  for (const name of sets) {
    parity[name.replace(/\.jsonl$/, "")] = await checkParity(ort, tokenizer, name, lines(`parity/${name}`), examples);
  }
  const encodeMs = {};
  for (const tokens of TIMED_TOKENS) {
    const timed = entries.findLast((entry) => entry.input_ids.length === tokens && /^[ -~]+$/.test(entry.text));
    if (timed) encodeMs[`${tokens} tokens`] = await time(encoder, timed.text);
  }

  await encoder.close();
  const mismatches = Object.values(parity).reduce((sum, set) => sum + set.mismatches, golden.id_mismatches);
  const passed = mismatches === 0 && near && golden.empty_batch !== false && golden.norm_error_max <= NORM_TOLERANCE;
  return { report: { passed, golden, parity, load_ms: round(loadMs, 1), encode_ms: encodeMs }, passed, examples };
}

async function goldenEntries(lines) {
  const entries = [];
  for await (const entry of parsed(GOLDEN, lines)) entries.push(entry);
  if (typeof entries[0]?.cosine_min !== "number") throw new InputError(`${GOLDEN}: its first line has no cosine_min`);
  if (entries.length < 2) throw new InputError(`${GOLDEN}: no texts in it`);
  const whole = (entry) => typeof entry.text === "string" && entry.input_ids?.length && entry.embedding?.length;
  const bad = entries.findIndex((entry, i) => i > 0 && !whole(entry));
  if (bad > 0) throw new InputError(`${GOLDEN}, line ${bad + 1}: text, input_ids or embedding is missing`);
  return entries;
}

/** Whether no texts give no vectors: float32 [0, dim]. */
async function emptyBatch(ort, session, dim) {
  const { embedding } = await session.run(feed(ort, session, []));
  return embedding.type === "float32" && embedding.dims[0] === 0 && embedding.dims[1] === dim;
}

/** Check vectors, encoded one by one, by QueryEncoder's batches and in one batch, and token ids. */
async function checkGolden(ort, encoder, session, tokenizer, entries, cosineMin, examples) {
  const texts = entries.map((entry) => entry.text);
  const alone = [];
  for (const text of texts) alone.push(...(await encoder.encode([text])));
  const batched = await encoder.encode(texts);
  const together = await vectors(ort, session, texts);
  const cosines = entries.map(({ embedding }, i) =>
    Math.min(...[alone, batched, together].map((vectors) => cosine(vectors[i], embedding))),
  );
  const errors = [...alone, ...batched, ...together].map((vector) => Math.abs(Math.sqrt(dot(vector, vector)) - 1));
  return {
    texts: texts.length,
    id_mismatches: await idMismatches(ort, tokenizer, GOLDEN, entries, examples),
    cosine_mismatches: cosines.filter((value) => !(value >= cosineMin)).length,
    cosine_min: round(Math.min(...cosines), 6),
    cosine_mean: round(cosines.reduce((sum, value) => sum + value, 0) / cosines.length, 6),
    batch_cosine_min: round(Math.min(...alone.map((vector, i) => cosine(vector, together[i]))), 6),
    norm_error_max: round(Math.max(...errors), 7),
  };
}

async function checkParity(ort, tokenizer, name, lines, examples) {
  const counts = { texts: 0, mismatches: 0 };
  let batch = [];
  const flush = async () => {
    if (batch.length) counts.mismatches += await idMismatches(ort, tokenizer, name, batch, examples);
    counts.texts += batch.length;
    batch = [];
  };
  for await (const entry of parsed(name, lines)) {
    if (typeof entry.text !== "string" || !Array.isArray(entry.input_ids)) {
      throw new InputError(`${name}, line ${counts.texts + batch.length + 1}: text or input_ids is missing`);
    }
    batch.push(entry);
    if (batch.length === BATCH) await flush();
  }
  await flush();
  if (!counts.texts) throw new InputError(`${name}: no texts in it`);
  return counts;
}

async function* parsed(name, lines) {
  let number = 0;
  for await (const line of lines) {
    number += 1;
    let entry;
    try {
      entry = JSON.parse(line);
    } catch {
      throw new InputError(`${name}, line ${number}: not JSON`);
    }
    yield entry;
  }
}

/** How many of the entries, run as one batch, have wrong ids. */
async function idMismatches(ort, tokenizer, name, entries, examples) {
  const outputs = await tokenizer.run(feed(ort, tokenizer, entries.map((entry) => entry.text)));
  const { input_ids: ids, attention_mask: mask } = outputs;
  const width = ids.dims[1];
  let mismatches = 0;
  entries.forEach((entry, row) => {
    const wanted = entry.input_ids;
    let same = wanted.length <= width;
    for (let i = 0; same && i < width; i++) {
      const at = row * width + i;
      same = i < wanted.length ? mask.data[at] === 1n && ids.data[at] === BigInt(wanted[i]) : mask.data[at] === 0n;
    }
    if (same) return;
    mismatches += 1;
    if (examples.length < EXAMPLES) {
      const cells = Array.from({ length: width }, (_, i) => row * width + i);
      const got = cells.filter((at) => mask.data[at]).map((at) => ids.data[at]);
      examples.push(`${name}: ${JSON.stringify(entry.text)} must give ${wanted.join(" ")}, gives ${got.join(" ")}`);
    }
  });
  return mismatches;
}

async function vectors(ort, session, texts) {
  const { embedding } = await session.run(feed(ort, session, texts));
  const dim = embedding.dims[1];
  return texts.map((_, row) => embedding.data.slice(row * dim, (row + 1) * dim));
}

/** Milliseconds from the string to the vector. */
async function time(encoder, text) {
  const times = [];
  for (let i = 0; i < WARMUPS + RUNS; i++) {
    const start = performance.now();
    await encoder.encode([text]);
    times.push(performance.now() - start);
  }
  const sorted = times.slice(WARMUPS).sort((a, b) => a - b);
  const percentile = (share) => round(sorted[Math.ceil(share * sorted.length) - 1], 3);
  return { p50: percentile(0.5), p95: percentile(0.95), runs: RUNS };
}

function dot(a, b) {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i] * b[i];
  return sum;
}

function cosine(a, b) {
  return a.length === b.length ? dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b)) : NaN;
}

function round(value, digits) {
  return Number(value.toFixed(digits));
}
