// @huggingface/tokenizers and onnxruntime-node by hand.
import { readFileSync } from "node:fs";
import { join } from "node:path";

export async function load(path, { threads, prompt, packages }) {
  const ort = packages("onnxruntime-node");
  const { Tokenizer } = packages("@huggingface/tokenizers");
  const read = (name) => JSON.parse(readFileSync(join(path, name), "utf-8"));
  const tokenizer = new Tokenizer(read("tokenizer.json"), read("tokenizer_config.json"));
  const window = read("tokenizer_config.json").model_max_length;
  const session = await ort.InferenceSession.create(join(path, "onnx/model.onnx"), { intraOpNumThreads: threads });
  const typed = session.inputNames.includes("token_type_ids");
  return async (texts) => {
    const rows = texts.map((text) => {
      const ids = tokenizer.encode(prompt + text).ids;
      return ids.length > window ? [...ids.slice(0, window - 1), ids.at(-1)] : ids;
    });
    const longest = Math.max(...rows.map((row) => row.length));
    const ids = new BigInt64Array(rows.length * longest);
    const mask = new BigInt64Array(rows.length * longest);
    rows.forEach((row, n) =>
      row.forEach((id, place) => {
        ids[n * longest + place] = BigInt(id);
        mask[n * longest + place] = 1n;
      }),
    );
    const tensor = (data) => new ort.Tensor("int64", data, [rows.length, longest]);
    const given = { input_ids: tensor(ids), attention_mask: tensor(mask) };
    if (typed) given.token_type_ids = tensor(new BigInt64Array(ids.length));
    const { sentence_embedding: vectors } = await session.run(given);
    return { data: vectors.data, dim: vectors.dims[1] };
  };
}
