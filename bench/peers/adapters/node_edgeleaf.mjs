// edgeleaf's fused file in onnxruntime-node: a string goes in.
import { join } from "node:path";

export async function load(path, { threads, packages }) {
  const ort = packages("onnxruntime-node");
  const session = await ort.InferenceSession.create(join(path, "query_encoder.onnx"), { intraOpNumThreads: threads });
  return async (texts) => {
    const { embedding } = await session.run({ text: new ort.Tensor("string", texts, [texts.length]) });
    return { data: embedding.data, dim: embedding.dims[1] };
  };
}
