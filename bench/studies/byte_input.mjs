// The two models that `python -m bench.studies.byte_input --save FOLDER` wrote, timed in onnxruntime-node and in the wasm build.
//   cd web_demo && node ../bench/studies/byte_input.mjs FOLDER
import "../../web_demo/quiet.mjs";

import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { join } from "node:path";

const require = createRequire(join(process.cwd(), "package.json"));
const folder = process.argv[2];
const texts = JSON.parse(await readFile(join(folder, "texts.json"), "utf8"));
const median = (values) => values.sort((a, b) => a - b)[values.length >> 1];

for (const [name, options] of [
  ["onnxruntime-node", { intraOpNumThreads: 1 }],
  ["onnxruntime-web", { executionProviders: ["wasm"] }],
]) {
  const ort = require(name);
  if (ort.env?.wasm) ort.env.wasm.numThreads = 1;
  const sessions = {};
  for (const kind of ["string", "bytes"]) {
    sessions[kind] = await ort.InferenceSession.create(await readFile(join(folder, `${kind}.onnx`)), options);
  }
  const calls = {
    string: (text) => sessions.string.run({ text: new ort.Tensor("string", [text], [1]) }),
    bytes: (text) => {
      const utf8 = new TextEncoder().encode(text);
      return sessions.bytes.run({ utf8: new ort.Tensor("uint8", utf8, [1, utf8.length]) });
    },
  };
  for (const [title, text] of Object.entries(texts)) {
    const times = { string: [], bytes: [] };
    for (let i = 0; i < 1500; i++) {
      for (const kind of i % 2 ? ["string", "bytes"] : ["bytes", "string"]) {
        const begin = performance.now();
        await calls[kind](text);
        times[kind].push(1000 * (performance.now() - begin));
      }
    }
    const [string, bytes] = [median(times.string), median(times.bytes)];
    console.log(`| ${name} | ${title} | ${string.toFixed(0)} | ${bytes.toFixed(0)} | ${(bytes / string).toFixed(2)} |`);
  }
}
