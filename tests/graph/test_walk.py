"""edgeleaf.graph.walk: graphs inside nodes are seen, and their own names are left alone."""

from __future__ import annotations

from onnx import TensorProto, helper

from edgeleaf.graph.walk import reads, rename_reads, rename_tensors, tensor_names

FLOATS = helper.make_tensor_value_info


def branching() -> helper.GraphProto:
    """Only the branches read x and w of the outer graph; ``own`` belongs to the branch."""
    inner = helper.make_graph(
        [helper.make_node("Add", ["x", "w"], ["own"]), helper.make_node("Neg", ["own"], ["out"])],
        "branch",
        [],
        [FLOATS("out", TensorProto.FLOAT, None)],
    )
    passing = helper.make_graph([], "passing", [], [FLOATS("x", TensorProto.FLOAT, None)])
    node = helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=passing)
    return helper.make_graph(
        [node], "outer", [FLOATS("c", TensorProto.BOOL, [])], [FLOATS("y", TensorProto.FLOAT, None)]
    )


def test_a_node_reads_what_its_branches_read() -> None:
    assert reads(branching().node[0]) == {"c", "x", "w"}


def test_reads_are_renamed_inside_but_not_a_branchs_own_tensors() -> None:
    node = branching().node[0]
    rename_reads(node, {"x": "z", "own": "other", "c": "d"})
    assert reads(node) == {"d", "z", "w"}


def test_tensors_are_renamed_wherever_they_stand() -> None:
    graph = branching()
    rename_tensors(graph, {"x": "z", "y": "last"})
    assert reads(graph.node[0]) == {"c", "z", "w"}
    assert {"c", "last", "own", "out"} <= set(tensor_names(graph))
    assert graph.output[0].name == "last"
