// Times one system in this Node process; the same requests and replies as edgeleaf/latency/worker.py.
// node worker.mjs ADAPTER; BENCH_MODULES is the folder whose node_modules contains the packages.
import "../../web_demo/quiet.mjs";

import { readFileSync, writeSync } from "node:fs";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";
import { createInterface } from "node:readline";
import { performance } from "node:perf_hooks";

const packages = createRequire(`${process.env.BENCH_MODULES}/`);
let encode = null;

const seeded = (seed) => () => {
  seed = (seed * 1664525 + 1013904223) >>> 0;
  return seed / 2 ** 32;
};
const shuffle = (items, dice) => {
  for (let i = items.length - 1; i > 0; i--) {
    const j = Math.floor(dice() * (i + 1));
    [items[i], items[j]] = [items[j], items[i]];
  }
};
const pick = (items, dice) => items[Math.floor(dice() * items.length)];
const cpuMs = () => {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
};

const requests = {
  async load({ path, threads, prompt, text, spawned, options }) {
    const { load } = await import(pathToFileURL(process.argv[2]));
    const imported = Date.now();
    encode = await load(path, { threads, prompt, packages, ...options });
    const { dim } = await encode([text]);
    const first = Date.now();
    const since = spawned * 1000;
    return { load_ms: first - imported, cold_ms: first - since, dim };
  },

  async time({ texts, passes, seconds, seed }) {
    const dice = seeded(seed);
    const lengths = Object.keys(texts);
    const timesMs = Object.fromEntries(lengths.map((length) => [length, []]));
    const usedMs = Object.fromEntries(lengths.map((length) => [length, 0]));
    for (const length of lengths) await encode([pick(texts[length], dice)]);
    const start = performance.now();
    for (let turn = 0; turn < passes; turn++) {
      if (turn && performance.now() - start > seconds * 1000) break;
      shuffle(lengths, dice);
      for (const length of lengths) {
        const text = [pick(texts[length], dice)];
        const busy = cpuMs();
        const begin = performance.now();
        await encode(text);
        timesMs[length].push(Math.round((performance.now() - begin) * 1e4) / 1e4);
        usedMs[length] += cpuMs() - busy;
      }
    }
    return { times_ms: timesMs, cpu_ms: usedMs };
  },

  async batches({ texts, size, seconds }) {
    await encode(texts.slice(0, size));
    let done = 0;
    const busy = cpuMs();
    const start = performance.now();
    while (!done || performance.now() - start < seconds * 1000) {
      for (let begin = 0; begin < texts.length; begin += size) await encode(texts.slice(begin, begin + size));
      done += texts.length;
    }
    return { queries: done, wall_s: (performance.now() - start) / 1000, cpu_s: (cpuMs() - busy) / 1000 };
  },

  async vectors({ texts }) {
    const rows = [];
    for (const text of texts) {
      const { data } = await encode([text]);
      rows.push(Buffer.from(Float32Array.from(data).buffer));
    }
    return { vectors: Buffer.concat(rows).toString("base64") };
  },

  async memory() {
    try {
      const [, kilobytes] = readFileSync("/proc/self/status", "utf-8").match(/VmHWM:\s+(\d+) kB/);
      return { peak_rss_mb: (Number(kilobytes) * 1024) / 1e6 };
    } catch {
      return { peak_rss_mb: null };
    }
  },
};

const send = (text) => {
  const bytes = Buffer.from(text);
  for (let sent = 0; sent < bytes.length; ) {
    try {
      sent += writeSync(1, bytes, sent);
    } catch (error) {
      if (error.code !== "EAGAIN") throw error; // the pipe is full
    }
  }
};

// The output of libraries must not mix with the replies.
process.stdout.write = process.stderr.write.bind(process.stderr);
try {
  for await (const line of createInterface({ input: process.stdin })) {
    const { do: name, ...request } = JSON.parse(line);
    send(JSON.stringify(await requests[name](request)) + "\n");
  }
  process.exit(0);
} catch (error) {
  // The runner quotes the last line.
  writeSync(2, `\n${error.name}: ${String(error.message).replace(/\s+/g, " ")}\n`);
  process.exit(1);
}
