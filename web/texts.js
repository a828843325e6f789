// Texts on their way into a fused file: checked, put into batches, and made a tensor of strings or of UTF-8 bytes.
import { EdgeleafError } from "./errors.js";

const FILLER = 0xff; // UTF-8 never holds this byte
const ENCODE_BATCH = 32;
const BATCH_CHARACTERS = 65_536; // of a batch, filler included, unless one text alone exceeds it
const PADDING = 16; // greatest difference in length within a batch; more padding costs more than a batch saves
const LONG = 20_000; // a text up to this length goes to the graph unchanged
const UNIT = "[!-/:-@\\[-`{-~]|(?<![^\\t\\n\\r -/:-@\\[-`{-~])[0-9A-Za-z]"; // see edgeleaf/bundle/long_texts.py
const ASCII_LETTERS = "0-9A-Za-z";
const LETTERS =
  `${ASCII_LETTERS}\\u00c0-\\u00d6\\u00d8-\\u00f6\\u00f8-\\u0131\\u0134-\\u013e\\u0141-\\u0148\\u014a-\\u017e` +
  "\\u0386\\u0388-\\u038a\\u038c\\u038e-\\u03a1\\u03a3-\\u03ce\\u0400-\\u0481\\u048a-\\u052f\\u05d0-\\u05ea" +
  "\\u0621-\\u063a\\u0641-\\u064a\\u0905-\\u0939\\u0e01-\\u0e30\\u3041-\\u3096\\u30a1-\\u30fa\\u4e00-\\u9fa5\\uac00-\\ud7a3";
const MARKS = "。，、！？；：";

/**
 * Throw an error unless these are texts.
 *
 * @param {unknown} texts
 */
export function checkTexts(texts) {
  if (typeof texts === "string") throw new EdgeleafError("encode got one string; an array is needed: encode([text])");
  if (!Array.isArray(texts)) throw new EdgeleafError(`encode got ${typeof texts}; an array of strings is needed`);
  for (let place = 0; place < texts.length; place++) {
    const text = texts[place];
    if (typeof text !== "string") throw new EdgeleafError(`text ${place} is ${typeof text}; a string is needed`);
    if (!text.isWellFormed()) {
      throw new EdgeleafError(`text ${place} holds half a surrogate pair, which is not text; call toWellFormed() first`);
    }
  }
}

/**
 * Batches of places of texts of similar length, the shortest first, to save padding; as in Python.
 *
 * @param {number[]} lengths
 * @returns {number[][]}
 */
export function batches(lengths) {
  const found = [];
  let batch = [];
  for (const place of lengths.map((_, place) => place).sort((a, b) => lengths[a] - lengths[b] || a - b)) {
    const length = lengths[place];
    const full = batch.length === ENCODE_BATCH || (batch.length + 1) * length > BATCH_CHARACTERS;
    if (batch.length && (full || length - lengths[batch[0]] > PADDING)) {
      found.push(batch);
      batch = [];
    }
    batch.push(place);
  }
  if (batch.length) found.push(batch);
  return found;
}

/**
 * A function that leaves out of a long text what cannot affect its tokens, so that it needs little memory.
 *
 * @param {string | undefined} entry `edgeleaf.long_texts` of the file's metadata
 * @returns {(text: string) => string}
 */
export function shortener(entry) {
  const found = new RegExp(`^(\\d{1,9}) (\\d{1,9})(?: ( [${MARKS}]*))?$`).exec(entry ?? "");
  if (!found) return (text) => text;
  const [units, characters, separators] = [Number(found[1]), Number(found[2]), found[3]];
  const letters = separators ? LETTERS : ASCII_LETTERS;
  const unit = characters ? UNIT : `(?<=[${letters}][${separators ?? " "}])[${letters}]`;
  return (text) => {
    if (text.length <= LONG) return text;
    let count = 0;
    for (const { index } of text.matchAll(new RegExp(unit, "g"))) {
      if (count === units) {
        text = text.slice(0, index);
        break;
      }
      count += 1;
    }
    if (!characters) return text;
    return text
      .replace(new RegExp(`([0-9A-Za-z]{${characters}})[0-9A-Za-z]+`, "g"), "$1")
      .replace(/[\t\n\r ]{2,}/g, " ");
  };
}

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

/** UTF-8, uint8 [texts, bytes], a text a row, short rows filled up on the right. */
function utf8Tensor(ort, texts) {
  const rows = texts.map((text) => new TextEncoder().encode(text));
  const width = rows.reduce((widest, row) => Math.max(widest, row.length), 0);
  const bytes = new Uint8Array(rows.length * width).fill(FILLER);
  rows.forEach((row, i) => bytes.set(row, i * width));
  return new ort.Tensor("uint8", bytes, [rows.length, width]);
}

/**
 * Strings, string [texts]. onnxruntime passes strings as C strings, which end at U+0000, so U+FFFD replaces it; the
 * tokenizer drops both alike.
 */
function textTensor(ort, texts) {
  const strings = texts.map((text) => text.replaceAll("\0", "\ufffd"));
  return new ort.Tensor("string", strings, [strings.length]);
}
