/** The identity of a vector space: teacher, hashes, pooling, prompts, width. Never compare vectors of two spaces. */
export interface VectorSpace {
  readonly teacher: string;
  readonly revision: string | null;
  readonly weights_sha256: string;
  readonly pooling: string;
  readonly normalized: boolean;
  readonly query_prompt: string;
  readonly document_prompt: string;
  readonly dim: number;
  readonly tokenizer_sha256?: string | null;
  readonly attention?: "bidirectional" | "causal" | null;
}

/** Bytes that have arrived, and bytes in total. */
export type Progress = (loaded: number, total: number) => void;

export interface LoadOptions {
  /** Processor threads that one call may use; 1 by default. In a page, more need cross-origin isolation. */
  threads?: number;
  /** Browser: where onnxruntime-web's .wasm files are, such as "/ort/"; its own default is beside its script. */
  wasmPaths?: string | Record<string, string>;
  /** The onnxruntime to use, or a promise of it, for pages without a bundler; else onnxruntime-node or -web/wasm. */
  ort?: unknown;
  progress?: Progress;
}

/** Encodes queries with a fused `query_encoder.onnx`. */
export class QueryEncoder {
  private constructor();

  /**
   * Load a bundle folder, whose hash is checked (in a page: on https and localhost), or a fused .onnx file.
   *
   * @throws EdgeleafError a file that is missing or damaged, or that is no fused encoder
   */
  static load(urlOrPath: string | URL, options?: LoadOptions): Promise<QueryEncoder>;

  /** The vector space of its vectors. */
  readonly space: VectorSpace;
  /** How many numbers a vector has. */
  readonly dim: number;
  /** How many tokens it reads of a text. */
  readonly window: number;
  /** What the file takes: strings, or their UTF-8. */
  readonly input: "text" | "utf8";
  /** Size of the file. */
  readonly bytes: number;

  /**
   * The vectors of texts, in their order: float32, unit L2 norm. A text's vector does not depend on the others. The query
   * prompt is inside the file.
   *
   * @throws EdgeleafError not an array of strings, or a string with half a surrogate pair
   */
  encode(texts: readonly string[]): Promise<Float32Array[]>;

  /** Free the model's memory, after the calls that are running. */
  close(): Promise<void>;
}

export interface Hit {
  readonly id: string;
  readonly text: string;
  /** Cosine to the query. */
  readonly score: number;
}

/** A folder that `edgeleaf index` wrote, in memory. */
export class DocumentIndex {
  private constructor();

  /** @throws EdgeleafError a file that is missing or damaged */
  static load(urlOrPath: string | URL, options?: { progress?: Progress }): Promise<DocumentIndex>;

  readonly space: VectorSpace;
  /** How many numbers a stored vector has: the space's, or fewer along principal axes. */
  readonly dim: number;
  readonly documents: readonly { readonly id: string; readonly text: string }[];

  /**
   * The `k` (by default 10) documents nearest to each vector, nearest first; exact.
   *
   * @throws EdgeleafError vectors of another space; the message names what differs
   */
  search(vectors: readonly Float32Array[], options: { space: VectorSpace; k?: number }): Hit[][];
}

/** What the caller can mend; the message is one line. */
export class EdgeleafError extends Error {}
