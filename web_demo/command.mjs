// Shared by the commands here: arguments, one-line errors, and finding Chromium.
import "./quiet.mjs";

import { accessSync, constants, existsSync as exists, readdirSync, statSync } from "node:fs";
import { delimiter, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

import { ENCODER, GOLDEN, InputError, TOKENIZER } from "./checks.mjs";

const PACKAGES = join(dirname(fileURLToPath(import.meta.url)), "node_modules");

/**
 * Run a command: its report goes to stdout as one JSON object. The exit code is 1 if a check failed, 2 for bad
 * input.
 *
 * @param {(print: (report: object) => void) => Promise<boolean>} main returns whether all checks passed
 */
export async function command(main) {
  try {
    if (!exists(PACKAGES)) throw new InputError(`${PACKAGES} is missing; run npm ci in ${dirname(PACKAGES)}`);
    const passed = await main((report) => process.stdout.write(`${JSON.stringify(report)}\n`));
    process.exitCode = passed ? 0 : 1;
  } catch (error) {
    const known = error instanceof InputError || error.code?.startsWith("ERR_PARSE_ARGS");
    console.error(known ? error.message : error);
    process.exitCode = 2;
  }
}

/**
 * The command line's folders and options.
 *
 * @param {string} usage shown if the number of folders is wrong
 * @param {number} folders how many folders the command takes
 * @param {object} [options] in the format of node:util's parseArgs
 * @returns {{folders: string[], options: object}}
 */
export function commandLine(usage, folders, options = {}) {
  const { values, positionals } = parseArgs({ options, allowPositionals: true });
  if (positionals.length !== folders) throw new InputError(`usage: ${usage}`);
  for (const folder of positionals) {
    if (!exists(folder) || !statSync(folder).isDirectory()) throw new InputError(`${folder}: no such folder`);
  }
  return { folders: positionals, options: values };
}

/** A whole number of threads, from 1 to 64. */
export function threadCount(text) {
  const threads = Number(text);
  if (!Number.isInteger(threads) || threads < 1 || threads > 64) {
    throw new InputError(`--threads ${text}: a whole number from 1 to 64 is needed`);
  }
  return threads;
}

/** The names of a pack's parity files; throws InputError if a file of the pack is missing. */
export function paritySets(pack) {
  for (const name of [ENCODER, TOKENIZER, GOLDEN]) {
    if (!exists(join(pack, name))) {
      throw new InputError(`${pack}: no ${name} in it; write a pack with: python -m tests.ports BUNDLE FOLDER`);
    }
  }
  const parity = join(pack, "parity");
  const names = exists(parity) ? readdirSync(parity).sort() : [];
  const sets = names.filter((name) => name.endsWith(".jsonl"));
  if (!sets.length) throw new InputError(`${pack}: no parity/*.jsonl in it`);
  return sets;
}

/**
 * Start headless Chromium, in a fresh profile: the one that CHROMIUM names, else /usr/bin/chromium or one on the PATH.
 *
 * @returns {Promise<object>} playwright's browser
 */
export async function startChromium() {
  const named = process.env.CHROMIUM;
  const folders = ["/usr/bin", ...(process.env.PATH ?? "").split(delimiter).filter(Boolean)];
  const places = folders.flatMap((folder) => ["chromium", "chromium-browser"].map((name) => join(folder, name)));
  const executablePath = (named ? [named] : places).find(isExecutable);
  if (!executablePath) {
    const missing = named ? `CHROMIUM=${named} is not a program` : "no Chromium was found";
    throw new InputError(`${missing}; install Debian's chromium (apt-get install chromium), or set CHROMIUM to one`);
  }
  const { chromium } = await import("playwright-core");
  return chromium.launch({
    executablePath,
    args: [
      "--no-sandbox",
      "--disable-gpu",
      "--disable-quic",
      "--no-first-run",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
    ],
  });
}

function isExecutable(path) {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}
