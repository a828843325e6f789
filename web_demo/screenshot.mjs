// node screenshot.mjs BUNDLE INDEX [--query TEXT] [--threads 1] [--png FOLDER] [--examples FILE]: opens the page in
// headless Chromium, types the query, and prints what the page then shows as one JSON object; with --png, also as
// pictures 1200 and 390 pixels wide, light and dark.
import { mkdirSync } from "node:fs";
import { join } from "node:path";

import { command, commandLine, startChromium, threadCount } from "./command.mjs";
import { serve } from "./server.mjs";
import { pagePaths } from "./site.mjs";

const VIEWS = [
  { name: "1200", width: 1200, height: 900, colorScheme: "light" },
  { name: "390", width: 390, height: 844, colorScheme: "light" },
  { name: "1200-dark", width: 1200, height: 900, colorScheme: "dark" },
  { name: "390-dark", width: 390, height: 844, colorScheme: "dark" },
];

await command(async (print) => {
  const usage = "node screenshot.mjs BUNDLE INDEX [--query TEXT] [--threads 1] [--png FOLDER] [--examples FILE]";
  const { folders, options } = commandLine(usage, 2, {
    query: { type: "string", default: "where is my parcel?" },
    threads: { type: "string", default: "1" },
    png: { type: "string" },
    examples: { type: "string" },
  });
  const threads = threadCount(options.threads);
  const paths = pagePaths(folders[0], folders[1], options.examples);
  const browser = await startChromium();
  const server = await serve(paths);
  try {
    const page = await browser.newPage();
    const foreign = [];
    const messages = [];
    page.on("request", (request) => request.url().startsWith(server.url) || foreign.push(request.url()));
    page.on("console", (message) => message.type() === "error" && messages.push(message.text()));
    page.on("pageerror", (error) => messages.push(error.message));
    await page.goto(`${server.url}?threads=${threads}`);
    await page.waitForSelector("body[data-state=ready], #error:not([hidden])");
    const error = await page.locator("#error").textContent();
    if (!error) {
      await page.locator("#query").pressSequentially(options.query);
      const found = (text) => document.querySelector("#hits").dataset.query === text;
      await page.waitForFunction(found, options.query.trim());
    }
    const shown = await page.evaluate(inPage);
    if (options.png) await pictures(page, options.png);
    print({ ...shown, error: error || null, messages, foreign_requests: foreign });
    return !error && !messages.length && !foreign.length;
  } finally {
    await browser.close();
    server.close();
  }
});

/** What the page shows; playwright carries this function there as text. */
function inPage() {
  const text = (id) => document.getElementById(id).textContent;
  return {
    encode_ms: Number(text("encode-ms")),
    search_ms: Number(text("search-ms")),
    runtime: `${text("runtime")} ${text("wasm")}`,
    threads: Number(document.querySelector("#threads [aria-pressed=true]")?.textContent),
    file: document.querySelector("#facts .size").textContent,
    cross_origin_isolated: crossOriginIsolated,
    wider_than_the_window: document.documentElement.scrollWidth > innerWidth,
    hits: [...document.querySelectorAll("#hits li")].map((item) => ({
      id: item.dataset.id,
      text: item.querySelector("p").textContent,
      score: Number(item.querySelector("data").value),
    })),
  };
}

async function pictures(page, folder) {
  mkdirSync(folder, { recursive: true });
  for (const { name, width, height, colorScheme } of VIEWS) {
    await page.setViewportSize({ width, height });
    await page.emulateMedia({ colorScheme });
    await page.screenshot({ path: join(folder, `page-${name}.png`) });
  }
}
