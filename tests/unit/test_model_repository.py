"""The Triton model repository: the same bytes each time, names and types that Triton can carry, no guesses."""

import stat
from pathlib import Path
from typing import Any

import pytest

from app.domain.errors import Rejected
from app.packaging import check_model_name, render_config, write_repository

INPUTS = [
    {"name": "room_type", "datatype": "BYTES", "shape": [-1, 1]},
    {"name": "nights", "datatype": "INT64", "shape": [-1, 1]},
]
OUTPUTS = [{"name": "variable", "datatype": "FP32", "shape": [-1, 1]}]


def tensor(**changes: Any) -> dict[str, Any]:
    return {"name": "x", "datatype": "FP32", "shape": [-1, 1]} | changes


def test_a_config_says_all_that_triton_would_otherwise_guess() -> None:
    assert render_config("airbnb-price", INPUTS, OUTPUTS, "gpu", 2) == (
        'name: "airbnb-price"\n'
        'backend: "onnxruntime"\n'
        'default_model_filename: "model.onnx"\n'
        "max_batch_size: 0\n"
        'input { name: "room_type" data_type: TYPE_STRING dims: [ -1, 1 ] }\n'
        'input { name: "nights" data_type: TYPE_INT64 dims: [ -1, 1 ] }\n'
        'output { name: "variable" data_type: TYPE_FP32 dims: [ -1, 1 ] }\n'
        "version_policy { latest { num_versions: 1 } }\n"
        "instance_group { kind: KIND_GPU count: 2 }\n"
        'parameters { key: "intra_op_thread_count" value { string_value: "1" } }\n'
        'parameters { key: "inter_op_thread_count" value { string_value: "1" } }\n'
    )


def test_the_instance_is_written_for_the_cpu_as_well_and_requests_are_never_merged() -> None:
    config = render_config("m", INPUTS, OUTPUTS, "cpu")
    assert "instance_group { kind: KIND_CPU count: 1 }" in config
    assert "dynamic_batching" not in config


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ('say "hi"', r'"say \"hi\""'),
        ("back\\slash", r'"back\\slash"'),
        ("m² größe", r'"m\302\262 gr\303\266\303\237e"'),
        ("two\nlines", r'"two\012lines"'),
        ("42", '"42"'),
    ],
)
def test_tensor_names_cannot_break_out_of_their_quotes(name: str, written: str) -> None:
    config = render_config("m", [tensor(name=name)], OUTPUTS, "cpu")
    assert f"input {{ name: {written} data_type: TYPE_FP32 dims: [ -1, 1 ] }}\n" in config


@pytest.mark.parametrize(
    "name", ["a/b", "..", ".", ".hidden", "", "a b", "a\n", "ü", "a%2fb", "a:b", "*", "x" * 201, "$(id)"]
)
def test_a_name_that_no_url_folder_or_argument_can_carry_is_refused_with_a_remedy(name: str, tmp_path: Path) -> None:
    with pytest.raises(Rejected) as caught:
        check_model_name(name)
    assert repr(name) in caught.value.reason
    assert "letters" in caught.value.remedy
    with pytest.raises(Rejected):
        render_config(name, INPUTS, OUTPUTS, "cpu")
    with pytest.raises(Rejected):
        write_repository(tmp_path, name, tmp_path / "none.onnx", "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["m", "airbnb-price", "Model_2.1", "a..b", "_x", "-x", "x" * 200])
def test_ordinary_names_pass(name: str) -> None:
    check_model_name(name)


@pytest.mark.parametrize(
    ("inputs", "names"),
    [
        ([tensor(datatype="BF16")], "BF16"),
        ([tensor(datatype="SEQUENCE")], "SEQUENCE"),
        ([tensor(shape=[])], "shape []"),
        ([tensor(shape=[-2])], "shape [-2]"),
        ([tensor(shape=[-1, 0])], "shape [-1, 0]"),
        ([tensor(shape=[-1, "n"])], "shape [-1, 'n']"),
        ([tensor(), tensor()], "['x', 'x']"),
        ([], "inputs []"),
    ],
)
def test_tensors_that_triton_has_no_word_for_are_refused(inputs: list[dict[str, Any]], names: str) -> None:
    with pytest.raises(Rejected) as caught:
        render_config("m", inputs, OUTPUTS, "cpu")
    assert names in caught.value.reason
    assert caught.value.remedy


def test_no_instances_are_refused() -> None:
    with pytest.raises(Rejected, match="0 instances"):
        render_config("m", INPUTS, OUTPUTS, "cpu", 0)


def test_a_repository_is_what_triton_reads_and_is_readable_for_a_user_of_no_privileges(tmp_path: Path) -> None:
    onnx = tmp_path / "weights"
    onnx.write_bytes(b"onnx")
    onnx.chmod(0o600)
    folder = write_repository(tmp_path / "repository", "m", onnx, "the config\n", version=7)
    found = {str(path.relative_to(folder)): path for path in folder.rglob("*")}
    assert sorted(found) == ["m", "m/7", "m/7/model.onnx", "m/config.pbtxt"]
    assert found["m/7/model.onnx"].read_bytes() == b"onnx"
    assert found["m/config.pbtxt"].read_bytes() == b"the config\n"
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (folder, *found.values())}
    assert modes == {0o755, 0o644}


def test_writing_again_leaves_nothing_of_an_earlier_try(tmp_path: Path) -> None:
    onnx = tmp_path / "weights"
    onnx.write_bytes(b"new")
    stale = tmp_path / "repository" / "m" / "3" / "model.onnx"
    stale.parent.mkdir(parents=True)
    stale.write_bytes(b"old")
    folder = write_repository(tmp_path / "repository", "m", onnx, "c")
    assert sorted(path.name for path in folder.rglob("*") if path.is_file()) == ["config.pbtxt", "model.onnx"]
    assert (folder / "m" / "1" / "model.onnx").read_bytes() == b"new"
