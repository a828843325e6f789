// Files of a bundle or an index: downloads with progress, lines of a stream, hashes, and the metadata of an ONNX file.
import { EdgeleafError } from "./errors.js";

/**
 * The bytes of a URL.
 *
 * @param {string} url
 * @param {(loaded: number, total: number) => void} [progress] bytes so far and in total; the total is 0 if unknown
 * @returns {Promise<Uint8Array>}
 */
export async function download(url, progress = () => {}) {
  let response;
  try {
    response = await fetch(url);
  } catch (error) {
    throw new EdgeleafError(`${url}: the server cannot be reached (${error.message})`);
  }
  if (!response.ok) throw new EdgeleafError(`${url}: the server answered ${response.status} ${response.statusText}`);
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

/** A file of a folder; both may be a path or a URL. */
export function inside(folder, name) {
  return `${folder.replace(/\/+$/, "")}/${name}`;
}

/** Files read at once, and the progress of all of them together, once the size of each is known. */
export async function readAll(platform, places, progress = () => {}) {
  const files = places.map(() => ({ loaded: 0, total: 0 }));
  const sum = (key) => files.reduce((all, file) => all + file[key], 0);
  const one = (i) => (loaded, total) => {
    files[i] = { loaded, total };
    if (files.every((file) => file.total)) progress(sum("loaded"), sum("total"));
  };
  return Promise.all(places.map((place, i) => platform.read(place, one(i))));
}

/** The object that JSON, as bytes or text, stands for; anything else costs one line. */
export function json(data, name) {
  let value;
  try {
    value = JSON.parse(typeof data === "string" ? data : new TextDecoder("utf-8", { fatal: true }).decode(data));
  } catch (error) {
    throw new EdgeleafError(`${name} is damaged: ${error.message}`);
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new EdgeleafError(`${name} is damaged: not an object`);
  }
  return value;
}

/**
 * The sha256 of bytes in hexadecimal; undefined in a page that is neither on https nor on localhost, which browsers give
 * no hash function.
 */
export async function sha256(bytes) {
  const subtle = globalThis.crypto?.subtle;
  if (!subtle) return undefined;
  const digest = new Uint8Array(await subtle.digest("SHA-256", bytes));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/**
 * The metadata of an ONNX file, which onnxruntime's JavaScript packages do not give out: field 14 of protobuf's message
 * ModelProto, entries of a key (1) and a value (2).
 *
 * @param {Uint8Array} bytes
 * @returns {Map<string, string>}
 * @throws {EdgeleafError} if it is no protobuf message
 */
export function metadataOf(bytes) {
  const metadata = new Map();
  for (const [field, content] of fieldsOf(bytes)) {
    if (field !== 14) continue;
    const entry = new Map(fieldsOf(content));
    metadata.set(text(entry.get(1)), text(entry.get(2)));
  }
  return metadata;
}

function text(bytes) {
  return new TextDecoder().decode(bytes ?? new Uint8Array());
}

/** Number and content of every field of a protobuf message that holds bytes. */
function* fieldsOf(bytes) {
  let at = 0;
  const damaged = () => new EdgeleafError("the model is damaged, or no ONNX file");
  const varint = () => {
    let value = 0;
    for (let shift = 0; shift < 70; shift += 7) {
      if (at >= bytes.length) throw damaged();
      const byte = bytes[at++];
      value += (byte & 127) * 2 ** shift;
      if (byte < 128) return value;
    }
    throw damaged();
  };
  while (at < bytes.length) {
    const tag = varint();
    const kind = tag % 8;
    if (kind === 0) varint();
    else if (kind === 1) at += 8;
    else if (kind === 5) at += 4;
    else if (kind === 2) {
      const length = varint();
      if (at + length > bytes.length) throw damaged();
      yield [Math.floor(tag / 8), bytes.subarray(at, at + length)];
      at += length;
    } else throw damaged();
  }
  if (at > bytes.length) throw damaged();
}
