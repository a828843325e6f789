// node browser.mjs PACK [--threads 1]: query_encoder.onnx in onnxruntime-web, in headless Chromium, checked against a
// pack (tests/ports.py). With one thread it serves the page like any plain host; with several, cross-origin isolated.
import { InputError } from "./checks.mjs";
import { command, commandLine, paritySets, startChromium, threadCount } from "./command.mjs";
import { PAGE, serve } from "./server.mjs";

await command(async (print) => {
  const { folders, options } = commandLine("node browser.mjs PACK [--threads 1]", 1, {
    threads: { type: "string", default: "1" },
  });
  const [pack] = folders;
  const threads = threadCount(options.threads);
  const sets = paritySets(pack);
  const browser = await startChromium();
  const server = await serve({ ...PAGE, "/": undefined, "/pack/": pack }, { isolated: threads > 1 });
  try {
    const page = await browser.newPage();
    page.on("console", (message) => message.type() !== "log" && console.error(message.text()));
    await page.goto(new URL("/page/blank.html", server.url).href);
    const outcome = await page.evaluate(inPage, { threads, sets });
    if (outcome.error) throw new InputError(outcome.error);
    for (const example of outcome.examples) console.error(example);
    // onnxruntime starts a worker for every thread except the page's own.
    const threadsSeen = page.workers().length + 1;
    print({
      runtime: outcome.runtime,
      host: `Chromium ${browser.version()}, ${process.platform} ${process.arch}`,
      threads: outcome.threads,
      workers: page.workers().length,
      cross_origin_isolated: outcome.isolated,
      ...outcome.report,
    });
    if (outcome.threads !== threads || threadsSeen !== threads || outcome.isolated !== threads > 1) {
      console.error(`${threads} threads were asked, onnxruntime-web ran ${threadsSeen}`);
      return false;
    }
    return outcome.passed;
  } finally {
    await browser.close();
    server.close();
  }
});

/** The code that the page runs; playwright sends it there as text. */
async function inPage({ threads, sets }) {
  const ort = await import("/ort/ort.wasm.min.mjs");
  const { check, InputError } = await import("/checks.mjs");
  const { QueryEncoder } = await import("/web/browser.js");
  const { download, linesOf } = await import("/web/files.js");
  const url = (name) => `/pack/${encodeURIComponent(name).replaceAll("%2F", "/")}`;
  async function* lines(name) {
    const response = await fetch(url(name));
    if (!response.ok) throw new InputError(`${name}: ${response.status}`);
    yield* linesOf(response.body);
  }
  try {
    const outcome = await check({
      ort,
      load: (name) => QueryEncoder.load(url(name), { ort, threads, wasmPaths: "/ort/" }),
      open: async (name) => ort.InferenceSession.create(await download(url(name)), { executionProviders: ["wasm"] }),
      lines,
      sets,
    });
    return {
      ...outcome,
      runtime: `onnxruntime-web ${ort.env.versions.web}, wasm`,
      threads: ort.env.wasm.numThreads,
      isolated: crossOriginIsolated,
    };
  } catch (error) {
    if (error instanceof InputError) return { error: error.message };
    throw error;
  }
}
