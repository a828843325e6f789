// The folder that `python -m bench.studies.tokenizer_runtimes FOLDER` wrote, in onnxruntime-node and the wasm build.
//   cd web_demo && node ../bench/studies/tokenizer_runtimes.mjs FOLDER
import "../../web_demo/quiet.mjs";

import { readdirSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { join } from "node:path";

const BATCH = 32;
const require = createRequire(join(process.cwd(), "package.json"));
const folder = process.argv[2];
const names = readdirSync(folder)
  .filter((name) => name.endsWith(".onnx"))
  .sort();
if (!names.length) {
  console.error(`${folder}: no .onnx in it; write it with python -m bench.studies.tokenizer_runtimes`);
  process.exit(2);
}

/** How many of the entries, run as one batch, have other ids or a wrong mask. */
async function different(ort, session, entries) {
  const texts = entries.map((entry) => entry.text);
  const { input_ids: ids, attention_mask: mask } = await session.run({
    text: new ort.Tensor("string", texts, [texts.length]),
  });
  const width = ids.dims[1];
  return entries.filter(({ input_ids: wanted }, row) => {
    if (wanted.length > width) return true;
    for (let i = 0; i < width; i++) {
      const at = row * width + i;
      const same = i < wanted.length ? mask.data[at] === 1n && ids.data[at] === BigInt(wanted[i]) : mask.data[at] === 0n;
      if (!same) return true;
    }
    return false;
  }).length;
}

let failed = false;
for (const [name, options] of [
  ["onnxruntime-node", { intraOpNumThreads: 1 }],
  ["onnxruntime-web", { executionProviders: ["wasm"] }],
]) {
  const ort = require(name);
  if (name === "onnxruntime-web") ort.env.wasm.numThreads = 1;
  const vocabularies = {};
  for (const file of names) {
    const session = await ort.InferenceSession.create(await readFile(join(folder, file)), options);
    const lines = (await readFile(join(folder, file.replace(/onnx$/, "jsonl")), "utf8")).split("\n").filter(Boolean);
    const entries = lines.map((line) => JSON.parse(line));
    let mismatches = 0;
    for (let i = 0; i < entries.length; i += BATCH) {
      mismatches += await different(ort, session, entries.slice(i, i + BATCH));
    }
    vocabularies[file.replace(/\.onnx$/, "")] = { texts: entries.length, mismatches };
    failed ||= mismatches > 0;
    await session.release();
  }
  const version = ort.env.versions.web ?? ort.env.versions.node;
  console.log(JSON.stringify({ runtime: `${name} ${version}`, vocabularies }));
}
process.exitCode = failed ? 1 : 0;
