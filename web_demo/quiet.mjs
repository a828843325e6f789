// Import this before onnxruntime-node: from 1.29 on it reports to its maker unless this variable is set when it is
// loaded. A user who wants the reports sets ORT_DISABLE_TELEMETRY=0. The WebAssembly build in browsers has none.
const asked = (process.env.ORT_DISABLE_TELEMETRY ?? "").trim().toLowerCase();
if (!["0", "false", "no", "off", "n"].includes(asked)) process.env.ORT_DISABLE_TELEMETRY = "1";
