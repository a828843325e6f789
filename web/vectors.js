// Matrices of an index: read from .npy files, shortened along principal axes, searched.
import { EdgeleafError } from "./errors.js";

/**
 * A matrix from the bytes of a .npy file.
 *
 * @param {Uint8Array} bytes float16 or float32, little endian, C order, two axes
 * @param {string} name of the file, for errors
 * @returns {{rows: number, dim: number, data: Float32Array}} row after row
 * @throws {EdgeleafError} if the file is something else
 */
export function readNpy(bytes, name = "vectors.npy") {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const magic = String.fromCharCode(...bytes.subarray(1, 6));
  if (bytes[0] !== 0x93 || magic !== "NUMPY") throw new EdgeleafError(`${name} is not a .npy file`);
  const long = bytes[6] > 1;
  const start = long ? 12 : 10;
  const end = start + (long ? view.getUint32(8, true) : view.getUint16(8, true));
  const header = new TextDecoder("latin1").decode(bytes.subarray(start, end));
  const type = /'descr': '([^']+)'/.exec(header)?.[1];
  const shape = /'shape': \((\d+), (\d+)\)/.exec(header);
  if (!shape || !/'fortran_order': False/.test(header) || (type !== "<f2" && type !== "<f4")) {
    throw new EdgeleafError(`${name}: a float16 or float32 matrix in C order is needed, this is ${header.trim()}`);
  }
  const [rows, dim] = [Number(shape[1]), Number(shape[2])];
  const body = new Uint8Array(bytes.subarray(end)); // a copy, so that its numbers are aligned
  if (body.length !== rows * dim * (type === "<f2" ? 2 : 4)) throw new EdgeleafError(`${name} is cut off`);
  return { rows, dim, data: type === "<f2" ? widened(new Uint16Array(body.buffer)) : new Float32Array(body.buffer) };
}

/** float16 bits to float32 numbers. */
function widened(halves) {
  const table = Float32Array.from({ length: 65536 }, (_, bits) => {
    const sign = bits & 0x8000 ? -1 : 1;
    const exponent = (bits >> 10) & 31;
    const fraction = bits & 1023;
    if (exponent === 31) return fraction ? NaN : sign * Infinity;
    return sign * (exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -14 * (fraction / 1024));
  });
  return Float32Array.from(halves, (bits) => table[bits]);
}

/**
 * A query's vector along the principal axes of a shortened index, normalised again.
 *
 * @param {{rows: number, dim: number, data: Float32Array}} pca one row per number of the query
 * @param {Float32Array} query unit vector of pca.rows numbers
 * @returns {Float32Array} unit vector of pca.dim numbers
 */
export function applyPca({ rows, dim, data }, query) {
  const short = new Float32Array(dim);
  for (let row = 0, at = 0; row < rows; row++) {
    for (let i = 0; i < dim; i++) short[i] += data[at++] * query[row];
  }
  const norm = Math.hypot(...short) || 1;
  return short.map((value) => value / norm);
}

/**
 * The rows nearest to a query, nearest first; of equals, the lower row first.
 *
 * @param {{rows: number, dim: number, data: Float32Array}} matrix unit rows
 * @param {Float32Array} query unit vector of matrix.dim numbers
 * @param {number} count how many
 * @returns {{row: number, score: number}[]} score: cosine
 */
export function nearest({ rows, dim, data }, query, count) {
  const scores = new Float32Array(rows);
  for (let row = 0, at = 0; row < rows; row++) {
    let sum = 0;
    for (let i = 0; i < dim; i++) sum += data[at++] * query[i];
    scores[row] = sum;
  }
  const order = Array.from(scores.keys()).sort((a, b) => scores[b] - scores[a] || a - b);
  return order.slice(0, count).map((row) => ({ row, score: scores[row] }));
}
