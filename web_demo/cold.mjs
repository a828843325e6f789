// node cold.mjs BUNDLE [--runs 5] [--threads 1]: how long a page takes from its first request to its first vector, in a
// fresh profile of headless Chromium each time, from a server on this machine; and what it fetches.
import { ENCODER, InputError } from "./checks.mjs";
import { command, commandLine, startChromium, threadCount } from "./command.mjs";
import { PAGE, serve } from "./server.mjs";

await command(async (print) => {
  const { folders, options } = commandLine("node cold.mjs BUNDLE [--runs 5] [--threads 1]", 1, {
    runs: { type: "string", default: "5" },
    threads: { type: "string", default: "1" },
  });
  const threads = threadCount(options.threads);
  const runs = Number(options.runs);
  if (!Number.isInteger(runs) || runs < 1) throw new InputError(`--runs ${options.runs}: a whole number is needed`);
  const server = await serve({ ...PAGE, "/": undefined, "/bundle/": folders[0] }, { isolated: threads > 1 });
  const cold = [];
  const sizes = new Map();
  try {
    for (let run = 0; run < runs; run++) {
      const browser = await startChromium();
      const page = await browser.newPage();
      page.on("response", async (response) => {
        sizes.set(new URL(response.url()).pathname, Number(response.headers()["content-length"] ?? 0));
      });
      await page.goto(new URL("/page/blank.html", server.url).href);
      const outcome = await page.evaluate(firstVector, threads);
      await browser.close();
      if (outcome.error) throw new InputError(outcome.error);
      cold.push(outcome.ms);
    }
  } finally {
    server.close();
  }
  cold.sort((a, b) => a - b);
  const bytes = [...sizes.values()].reduce((sum, size) => sum + size, 0);
  const model = sizes.get(`/bundle/${ENCODER}`);
  print({ cold_ms: Math.round(cold[runs >> 1]), runs, threads, model_bytes: model, other_bytes: bytes - model });
  return true;
});

/** The code that the page runs; playwright sends it there as text. */
async function firstVector(threads) {
  const start = performance.now();
  try {
    const ort = await import("/ort/ort.wasm.min.mjs");
    const { QueryEncoder } = await import("/web/browser.js");
    const encoder = await QueryEncoder.load("/bundle/", { ort, threads, wasmPaths: "/ort/" });
    await encoder.encode(["where is my parcel?"]);
    return { ms: performance.now() - start };
  } catch (error) {
    return { error: error.message };
  }
}
