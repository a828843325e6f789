// transformers.js: its tokenizer and its model loader, the graph's own sentence_embedding.
export async function load(path, { threads, prompt, packages }) {
  const { AutoModel, AutoTokenizer, env } = packages("@huggingface/transformers");
  env.allowRemoteModels = false;
  const tokenizer = await AutoTokenizer.from_pretrained(path, { local_files_only: true });
  const model = await AutoModel.from_pretrained(path, {
    local_files_only: true,
    dtype: "q8",
    session_options: { intraOpNumThreads: threads },
  });
  return async (texts) => {
    const given = await tokenizer(
      texts.map((text) => prompt + text),
      { padding: true, truncation: true },
    );
    const { sentence_embedding: vectors } = await model(given);
    return { data: vectors.data, dim: vectors.dims[1] };
  };
}
