// Encodes the golden pack with query_encoder.onnx and compares each vector with Python's, to the last bit.
//
//   node main.mjs query_encoder.onnx PACK [THREADS]
//
// Encoder is the part to copy; the npm package edgeleaf (web/) does more.
import { readFileSync } from "node:fs";
import { join } from "node:path";

// From 1.29 on, onnxruntime reports to its maker, unless this is set before it is loaded.
process.env.ORT_DISABLE_TELEMETRY = "1";
const ort = await import("onnxruntime-node");

/** Turns texts into unit vectors in the teacher's space. */
class Encoder {
  #session;

  constructor(session) {
    this.#session = session;
  }

  /** Loads a fused file. `threads` is how many processor threads one call may use. */
  static async open(model, threads = 1) {
    return new Encoder(await ort.InferenceSession.create(model, { intraOpNumThreads: threads, interOpNumThreads: 1 }));
  }

  /** A vector per text. A text's vector does not depend on the others. */
  async encode(texts) {
    if (!texts.length) return [];
    // Strings pass through C and end at U+0000. The tokenizer drops it and U+FFFD alike.
    const exact = texts.map((text) => text.replaceAll("\0", "\ufffd"));
    const { embedding } = await this.#session.run({ text: new ort.Tensor("string", exact, [exact.length]) });
    const dim = embedding.dims[1];
    return exact.map((_, row) => embedding.data.slice(row * dim, (row + 1) * dim));
  }

  async close() {
    await this.#session.release();
  }
}

const BATCH = 32;

/** texts.bin: a count, then each text's length and UTF-8; vectors.bin: float32; little endian. */
function readPack(folder) {
  const data = readFileSync(join(folder, "texts.bin"));
  const texts = [];
  for (let at = 4, count = data.readUInt32LE(0); texts.length < count; ) {
    const size = data.readUInt32LE(at);
    texts.push(data.toString("utf8", at + 4, at + 4 + size));
    at += 4 + size;
  }
  const numbers = readFileSync(join(folder, "vectors.bin"));
  const size = numbers.length / texts.length;
  return { texts, expected: texts.map((_, i) => numbers.subarray(i * size, (i + 1) * size)) };
}

const same = (vector, bytes) => Buffer.from(vector.buffer, vector.byteOffset, vector.byteLength).equals(bytes);

const [model, pack, threads = "1"] = process.argv.slice(2);
if (!pack) {
  console.error("usage: node main.mjs query_encoder.onnx PACK [THREADS]");
  process.exit(2);
}
const { texts, expected } = readPack(pack);
const encoder = await Encoder.open(model, Number(threads));
const equal = [];
const times = [];
for (const [i, text] of texts.entries()) {
  const start = performance.now();
  const [vector] = await encoder.encode([text]);
  times.push(performance.now() - start);
  equal.push(same(vector, expected[i]));
}
for (let start = 0; start < texts.length; start += BATCH) {
  const vectors = await encoder.encode(texts.slice(start, start + BATCH));
  vectors.forEach((vector, i) => (equal[start + i] &&= same(vector, expected[start + i])));
}
await encoder.close();
const count = equal.filter(Boolean).length;
const p50 = times.sort((a, b) => a - b)[times.length >> 1];
console.log(JSON.stringify({ texts: texts.length, equal: count, p50_ms: Number(p50.toFixed(3)) }));
process.exitCode = count === texts.length ? 0 : 1;
