// node serve.mjs BUNDLE INDEX [--port 8000] [--host 127.0.0.1] [--examples FILE]: serves the page.
// INDEX is a folder that `edgeleaf index` wrote; FILE has one query per line, for the buttons.
import { InputError } from "./checks.mjs";
import { command, commandLine } from "./command.mjs";
import { serve } from "./server.mjs";
import { pagePaths } from "./site.mjs";

await command(async () => {
  const usage = "node serve.mjs BUNDLE INDEX [--port 8000] [--host 127.0.0.1] [--examples FILE]";
  const { folders, options } = commandLine(usage, 2, {
    port: { type: "string", default: "8000" },
    host: { type: "string", default: "127.0.0.1" },
    examples: { type: "string" },
  });
  const [bundle, index] = folders;
  const port = Number(options.port);
  if (!Number.isInteger(port) || port < 0 || port > 65535) {
    throw new InputError(`--port ${options.port}: a whole number below 65536 is needed`);
  }
  const { url } = await serve(pagePaths(bundle, index, options.examples), { host: options.host, port });
  console.log(url);
  return true;
});
