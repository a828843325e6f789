// Import this before onnxruntime-node: it switches the reports to its maker off.
import "../web/quiet.js";
