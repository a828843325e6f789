// node node.mjs PACK [--threads 1]: query_encoder.onnx in onnxruntime-node, checked against a pack (tests/ports.py).
import { createReadStream } from "node:fs";
import { join } from "node:path";
import { Readable } from "node:stream";

import { linesOf } from "../web/files.js";
import { QueryEncoder } from "../web/node.js";
import { check } from "./checks.mjs";
import { command, commandLine, paritySets, threadCount } from "./command.mjs";

await command(async (print) => {
  const { folders, options } = commandLine("node node.mjs PACK [--threads 1]", 1, {
    threads: { type: "string", default: "1" },
  });
  const [pack] = folders;
  const ort = await import("onnxruntime-node");
  const threads = threadCount(options.threads);
  const { report, passed, examples } = await check({
    ort,
    load: (name) => QueryEncoder.load(join(pack, name), { ort, threads }),
    open: (name) => ort.InferenceSession.create(join(pack, name), { intraOpNumThreads: threads }),
    lines: (name) => linesOf(Readable.toWeb(createReadStream(join(pack, name)))),
    sets: paritySets(pack),
  });
  for (const example of examples) console.error(example);
  print({
    runtime: `onnxruntime-node ${ort.env.versions.node}`,
    host: `Node ${process.versions.node}, ${process.platform} ${process.arch}`,
    threads,
    ...report,
  });
  return passed;
});
