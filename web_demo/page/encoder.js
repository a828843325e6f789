// Helpers for every JavaScript host of query_encoder.onnx: texts as a tensor, a download with progress, and lines of
// a stream. Runs in Node, in a page and in a worker.

const FILLER = 0xff; // UTF-8 never holds this byte

/**
 * Texts as the input of one run: strings, or their UTF-8, whichever the file takes.
 *
 * @param {object} ort onnxruntime-web or onnxruntime-node
 * @param {object} session of a fused file
 * @param {string[]} texts
 * @returns {object} the argument of session.run
 */
export function feed(ort, session, texts) {
  return session.inputNames[0] === "utf8" ? { utf8: utf8Tensor(ort, texts) } : { text: textTensor(ort, texts) };
}

/**
 * UTF-8 as the model's input, a text a row, short rows filled up on the right.
 *
 * @param {object} ort onnxruntime-web or onnxruntime-node
 * @param {string[]} texts
 * @returns {object} uint8 tensor [texts.length, bytes]
 */
export function utf8Tensor(ort, texts) {
  const rows = texts.map((text) => new TextEncoder().encode(text));
  const width = rows.reduce((widest, row) => Math.max(widest, row.length), 0);
  const bytes = new Uint8Array(rows.length * width).fill(FILLER);
  rows.forEach((row, i) => bytes.set(row, i * width));
  return new ort.Tensor("uint8", bytes, [rows.length, width]);
}

/**
 * Strings as the model's input. onnxruntime passes strings as C strings, which end at U+0000, so U+FFFD replaces it;
 * the tokenizer drops both alike.
 *
 * @param {object} ort onnxruntime-web or onnxruntime-node
 * @param {string[]} texts
 * @returns {object} string tensor [texts.length]
 */
export function textTensor(ort, texts) {
  const strings = texts.map((text) => text.replaceAll("\0", "\ufffd"));
  return new ort.Tensor("string", strings, [strings.length]);
}

/**
 * The bytes of a URL.
 *
 * @param {string} url
 * @param {(loaded: number, total: number) => void} [progress] bytes so far and in total; the total is 0 if unknown
 * @returns {Promise<Uint8Array>}
 * @throws {Error} if the server does not answer with the file
 */
export async function download(url, progress = () => {}) {
  const response = await fetch(url);
  if (!response.ok) throw new Error(`${url}: the server answered ${response.status} ${response.statusText}`);
  const total = Number(response.headers.get("content-length") ?? 0);
  const chunks = [];
  let loaded = 0;
  for (const reader = response.body.getReader(); ; ) {
    const { done, value } = await reader.read();
    if (done) break;
    chunks.push(value);
    loaded += value.length;
    progress(loaded, total);
  }
  const bytes = new Uint8Array(loaded);
  let offset = 0;
  for (const chunk of chunks) {
    bytes.set(chunk, offset);
    offset += chunk.length;
  }
  return bytes;
}

/**
 * The lines of a UTF-8 stream, cut only at "\n", because U+2028 and similar characters occur inside texts.
 *
 * @param {ReadableStream<Uint8Array>} stream
 * @returns {AsyncGenerator<string>} lines that are not empty
 */
export async function* linesOf(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream("utf-8", { fatal: true })).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    const lines = (rest + (value ?? "")).split("\n");
    rest = done ? "" : lines.pop();
    for (const line of lines) if (line) yield line;
    if (done) return;
  }
}
