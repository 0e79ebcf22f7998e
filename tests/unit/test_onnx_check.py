"""What an ONNX model may hold: ours and ONNX's own rules, limits, a free batch axis, and the age of the server."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from app.db.session import Database
from app.domain.onnx_support import RUNTIMES, TRITON, of_image, of_runtime
from tests.plant import World
from workers.sandbox import onnx_check, onnx_limits
from workers.sandbox.refusal import Refused

Change = Callable[[onnx.ModelProto], None]


def value(name: str, *shape: int | str | None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def model(*nodes: onnx.NodeProto, opset: int = 18, **more: Any) -> onnx.ModelProto:
    """A valid model of one column, with the given nodes instead of its only one."""
    nodes = nodes or (helper.make_node("Add", ["x", "w"], ["y"]),)
    weight = onnx.numpy_helper.from_array(np.ones((1, 1), dtype=np.float32), "w")
    graph = helper.make_graph(nodes, "g", [value("x", None, 1)], [value("y", None, 1)], [weight])
    given = {"opset_imports": [helper.make_opsetid("", opset)], "ir_version": 9, **more}
    return helper.make_model(graph, **given)


def _branch(depth: int) -> onnx.NodeProto:
    """Graphs within graphs."""
    inner = helper.make_node("Identity", ["x"], ["z"]) if depth == 0 else _branch(depth - 1)
    graph = helper.make_graph([inner], "inner", [], [value("z", None, 1)])
    return helper.make_node("If", ["w"], ["y"], then_branch=graph, else_branch=graph)


def _loop(limit: str) -> onnx.NodeProto:
    turn = [
        helper.make_tensor_value_info("i", TensorProto.INT64, []),
        helper.make_tensor_value_info("c", TensorProto.BOOL, []),
        value("s", None, 1),
    ]
    after = [helper.make_tensor_value_info("c2", TensorProto.BOOL, []), value("s2", None, 1)]
    names = [("c", "c2"), ("s", "s2")]
    body = helper.make_graph([helper.make_node("Identity", [a], [b]) for a, b in names], "body", turn, after)
    return helper.make_node("Loop", [limit, "", "x"], ["y"], name="endless", body=body)


def _function(name: str, *calls: str) -> onnx.FunctionProto:
    nodes = [helper.make_node(call, ["a"], ["b"], domain="com.microsoft") for call in calls]
    return helper.make_function("com.microsoft", name, ["a"], ["b"], nodes, [helper.make_opsetid("", 18)])


def _calling(*functions: onnx.FunctionProto) -> onnx.ModelProto:
    node = helper.make_node(functions[0].name, ["x"], ["y"], domain="com.microsoft")
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    return model(node, opset_imports=opsets, functions=functions)


def _changed(change: Change) -> onnx.ModelProto:
    found = model()
    change(found)
    return found


def _outside(tensor: onnx.TensorProto) -> None:
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")


def _outside_of_a_constant() -> onnx.ModelProto:
    tensor = onnx.numpy_helper.from_array(np.ones(1, dtype=np.float32), "t")
    _outside(tensor)
    found = model(helper.make_node("Constant", [], ["y"]))
    found.graph.node[0].attribute.append(onnx.AttributeProto(name="value", type=onnx.AttributeProto.TENSOR, t=tensor))
    return found


def _outside_of_a_sparse_one(found: onnx.ModelProto) -> None:
    sparse = found.graph.sparse_initializer.add(dims=[3])
    sparse.values.CopyFrom(onnx.numpy_helper.from_array(np.ones(1, dtype=np.float32), "v"))
    _outside(sparse.values)


def _huge_and_empty(found: onnx.ModelProto) -> None:
    found.graph.sparse_initializer.add(dims=[1 << 20, 1 << 20])


def _fixed(of: str) -> Change:
    def change(found: onnx.ModelProto) -> None:
        getattr(found.graph, of)[0].type.tensor_type.shape.dim[0].dim_value = 1

    return change


REFUSED: dict[str, tuple[Callable[[], onnx.ModelProto], str]] = {
    "another domain": (
        lambda: model(
            helper.make_node("Add", ["x", "w"], ["y"], domain="evil.ops"),
            opset_imports=[helper.make_opsetid("", 18), helper.make_opsetid("evil.ops", 1)],
        ),
        "unknown-operators",
    ),
    "another domain deep within": (
        lambda: model(
            helper.make_node(
                "If",
                ["w"],
                ["y"],
                then_branch=helper.make_graph([helper.make_node("Run", [], ["z"], domain="py")], "t", [], []),
                else_branch=helper.make_graph([], "e", [], []),
            )
        ),
        "unknown-operators",
    ),
    "a compiled part beside the model": (
        lambda: model(
            helper.make_node("EPContext", ["x"], ["y"], domain="com.microsoft", ep_cache_context="/etc/passwd"),
            opset_imports=[helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)],
        ),
        "external-data",
    ),
    "data outside": (lambda: _changed(lambda m: _outside(m.graph.initializer[0])), "external-data"),
    "data outside, not marked so": (
        lambda: _changed(lambda m: m.graph.initializer[0].external_data.add(key="location", value="w.bin")),
        "external-data",
    ),
    "data outside, of a constant": (_outside_of_a_constant, "external-data"),
    "data outside, of a sparse tensor": (lambda: _changed(_outside_of_a_sparse_one), "external-data"),
    "a training graph": (lambda: _changed(lambda m: m.training_info.add()), "training-data"),
    "graphs nested deep": (lambda: model(_branch(onnx_limits.MAX_DEPTH)), "onnx-limits"),
    "a loop without end": (lambda: model(_loop("")), "onnx-limits"),
    "many loops": (lambda: model(*[_loop("w")] * (onnx_limits.MAX_LOOPS + 1)), "onnx-limits"),
    "a function that calls itself": (lambda: _calling(_function("f", "f")), "onnx-limits"),
    "functions that call each other": (lambda: _calling(_function("f", "g"), _function("g", "f")), "onnx-limits"),
    "functions that multiply": (
        lambda: _calling(*(_function(f"f{n}", *[f"f{n + 1}"] * 10) for n in range(6))),
        "onnx-limits",
    ),
    "a sparse tensor of any size": (lambda: _changed(_huge_and_empty), "onnx-limits"),
    "a tensor of any size": (lambda: _changed(lambda m: m.graph.initializer[0].dims.extend([1 << 62])), "onnx-limits"),
    "one row only": (lambda: _changed(_fixed("input")), "no-batch-axis"),
    "one answer only": (lambda: _changed(_fixed("output")), "no-batch-axis"),
    "a scalar": (lambda: _changed(lambda m: m.graph.input[0].type.tensor_type.shape.ClearField("dim")), "no-batch-"),
    "no shape": (lambda: _changed(lambda m: m.graph.input[0].type.tensor_type.ClearField("shape")), "no-batch-axis"),
    "no input": (lambda: _changed(lambda m: m.graph.ClearField("input")), "no-batch-axis"),
    "a missing weight": (lambda: _changed(lambda m: m.graph.ClearField("initializer")), "invalid-onnx"),
    "a weight that is too short": (lambda: _changed(lambda m: m.graph.initializer[0].dims.append(9)), "invalid-onnx"),
    "a weight of a negative size": (
        lambda: _changed(lambda m: m.graph.initializer[0].dims.__setitem__(0, -1)),
        "invalid-onnx",
    ),
    "no such operator": (lambda: model(helper.make_node("NoSuch", ["x"], ["y"])), "invalid-onnx"),
    "nothing": (onnx.ModelProto, "no-batch-axis"),
}


def test_an_ordinary_model_passes() -> None:
    onnx_check.check(model(), of_runtime("1.32.0").as_json())


@pytest.mark.parametrize("kind", REFUSED)
def test_what_must_not_be_served_is_refused(kind: str) -> None:
    make, code = REFUSED[kind]

    with pytest.raises(Refused) as caught:
        onnx_check.check(make())

    assert caught.value.code.startswith(code), caught.value.reason
    assert caught.value.reason.isprintable() and caught.value.remedy


def _named(count: int) -> dict[str, Any]:
    return {f"a{n}": n for n in range(count)}


@pytest.mark.parametrize(
    ("limit", "made"),
    [
        ("MAX_NODES", lambda: model(*[helper.make_node("Identity", ["x"], ["y"])] * 11)),
        ("MAX_TENSORS", lambda: _changed(lambda m: m.graph.initializer.extend(list(m.graph.initializer) * 11))),
        ("MAX_ATTRIBUTES", lambda: model(helper.make_node("Add", ["x"], ["y"], **_named(11)))),
        ("MAX_VALUES", lambda: model(helper.make_node("Add", ["x"], ["y"], a=list(range(11))))),
    ],
)
def test_everything_is_counted(monkeypatch: pytest.MonkeyPatch, limit: str, made: Callable[[], Any]) -> None:
    monkeypatch.setattr(onnx_limits, limit, 10)

    with pytest.raises(Refused, match=r"11 where 10 may be|12 where 10 may be"):
        onnx_check.check(made())


@pytest.mark.parametrize(
    ("newer", "words"),
    [
        ({"opset": 24}, "opset 24"),
        ({"ir_version": 12}, "IR version"),
        ({"opset_imports": [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 9)]}, "ai.onnx.ml 9"),
        # Of two claims the higher one counts.
        ({"opset_imports": [helper.make_opsetid("", 18), helper.make_opsetid("", 24)]}, "opset 24"),
    ],
)
def test_a_model_that_is_newer_than_the_server_is_refused(newer: dict[str, Any], words: str) -> None:
    support = of_image("nvcr.io/nvidia/tritonserver:25.10-py3")
    assert support is not None

    with pytest.raises(Refused) as caught:
        onnx_check.check(model(**newer), support.as_json())

    assert caught.value.code == "newer-than-server"
    assert words in caught.value.reason and "Triton 25.10" in caught.value.reason


def _loads(**stamped: Any) -> bool:
    """Whether the ONNX Runtime that is installed here loads a model with these stamps."""
    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    if stamped.get("ml"):
        nodes = [helper.make_node("Scaler", ["x"], ["y"], domain="ai.onnx.ml", offset=[0.0], scale=[1.0])]
    opsets = [helper.make_opsetid("", stamped.get("opset", 18))]
    opsets += [helper.make_opsetid("ai.onnx.ml", stamped["ml"])] if stamped.get("ml") else []
    made = model(*nodes, opset_imports=opsets, ir_version=stamped.get("ir", 9))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        onnxruntime.InferenceSession(made.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception:  # noqa: BLE001 - ONNX Runtime's errors have no common base
        return False
    return True


def test_the_table_is_right_about_the_runtime_that_is_installed() -> None:
    """A new version of onnxruntime needs a row of its own: this says so."""
    support = of_runtime(onnxruntime.__version__)

    assert tuple(int(part) for part in onnxruntime.__version__.split(".")[:2]) in RUNTIMES
    assert _loads(opset=support.opset) and not _loads(opset=support.opset + 1)
    assert _loads(ml=support.ml_opset) and not _loads(ml=support.ml_opset + 1)
    assert _loads(ir=support.ir_version) and not _loads(ir=support.ir_version + 1)


def test_the_table_knows_releases_between_its_rows() -> None:
    def opset(image: str) -> int:
        support = of_image(image)
        assert support is not None
        return support.opset

    assert [
        opset(f"nvcr.io/nvidia/tritonserver:{tag}") for tag in ("25.07-py3", "26.01-py3", "26.06", "27.01-py3")
    ] == [
        22,
        23,
        25,
        26,
    ]
    assert of_image("headgate/triton-cpu:latest") is None
    assert (of_runtime("1.26.1").opset, of_runtime("1.99.0").opset, of_runtime("1.20.0").opset) == (25, 28, 22)
    assert set(TRITON.values()) <= set(RUNTIMES)


def test_the_step_says_what_the_target_loads(database: Database, tmp_path: Path) -> None:
    """Target `process` serves with the ONNX Runtime that is installed here."""
    world = World(database, tmp_path)
    asked: list[Any] = []
    world.sandbox.before = lambda job: asked.append(job.request.get("support"))

    world.run(world.ask("1"))

    assert asked[1]["runtime"] == f"ONNX Runtime {onnxruntime.__version__}"
    assert asked[1]["opset"] == of_runtime(onnxruntime.__version__).opset
