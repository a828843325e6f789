// Imported before onnxruntime-node, which from 1.29 on reports to its maker unless this variable is set when it is
// loaded. Users who want the reports set ORT_DISABLE_TELEMETRY=0. The WebAssembly build in browsers reports nothing.
const asked = (process.env.ORT_DISABLE_TELEMETRY ?? "").trim().toLowerCase();
if (!["0", "false", "no", "off", "n"].includes(asked)) process.env.ORT_DISABLE_TELEMETRY = "1";
