"""The folders that images are built from: what is in them, and which base images are refused."""

from pathlib import Path
from typing import Literal

import pytest

from app.domain.errors import Fault, Rejected
from app.packaging import ROOT, TEMPLATES, write_base_context, write_docker_context

NGC = "nvcr.io/nvidia/tritonserver:25.07-py3"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    weights = tmp_path / "repository" / "m" / "1" / "model.onnx"
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"onnx")
    (weights.parents[1] / "config.pbtxt").write_text("config")
    return tmp_path / "repository"


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_cpu_and_the_gpu_image_carry_the_same_model_repository(tmp_path: Path, repository: Path) -> None:
    cpu = files(write_docker_context(tmp_path / "cpu", repository, "m", "cpu", "headgate/triton-cpu:1"))
    gpu = files(write_docker_context(tmp_path / "gpu", repository, "m", "gpu", NGC))
    from_cpu, from_gpu = cpu.pop("Dockerfile").decode(), gpu.pop("Dockerfile").decode()
    assert cpu == gpu
    assert {name: cpu[name] for name in cpu if name.startswith("models/")} == {
        "models/m/config.pbtxt": b"config",
        "models/m/1/model.onnx": b"onnx",
    }
    assert "\nFROM headgate/triton-cpu:1\n" in from_cpu
    assert f"\nFROM {NGC}\n" in from_gpu
    for text, instance in ((from_cpu, "cpu"), (from_gpu, "gpu")):
        assert f'headgate.instance="{instance}"' in text
        assert 'ENTRYPOINT ["/bin/sh", "/opt/headgate/serve.sh", "m"]' in text
        assert "\nUSER 10001:10001\n" in text
        assert "{{" not in text


def test_a_context_is_written_afresh(tmp_path: Path, repository: Path) -> None:
    stale = tmp_path / "context" / "models" / "other" / "secret"
    stale.parent.mkdir(parents=True)
    stale.write_text("left by an earlier try")
    context = write_docker_context(tmp_path / "context", repository, "m", "cpu", "base:1")
    assert sorted(files(context)) == ["Dockerfile", "models/m/1/model.onnx", "models/m/config.pbtxt", "serve.sh"]


@pytest.mark.parametrize(
    "image", ["", "a b", "base\nRUN id", "-x", "UPPER", "base:1 AS x", "${X}", "nvcr.io/x\\y", "base:1\n"]
)
@pytest.mark.parametrize("instance", ["cpu", "gpu"])
def test_what_names_no_image_cannot_get_into_a_dockerfile(
    tmp_path: Path, repository: Path, image: str, instance: Literal["cpu", "gpu"]
) -> None:
    with pytest.raises(Fault, match="no name of an image"):
        write_docker_context(tmp_path / "context", repository, "m", instance, image)
    with pytest.raises(Fault, match="no name of an image"):
        write_base_context(tmp_path / "base", image, "1.0")


def test_a_model_that_triton_cannot_name_gets_no_image(tmp_path: Path, repository: Path) -> None:
    with pytest.raises(Rejected):
        write_docker_context(tmp_path / "context", repository, '"]\nRUN id', "cpu", "base:1")


@pytest.mark.parametrize("tag", ["25.06-py3", "24.12-py3", "23.01"])
def test_a_triton_with_known_holes_is_refused(tmp_path: Path, repository: Path, tag: str) -> None:
    with pytest.raises(Fault, match="known vulnerabilities") as caught:
        write_docker_context(tmp_path / "context", repository, "m", "gpu", f"nvcr.io/nvidia/tritonserver:{tag}")
    assert "25.07" in caught.value.remedy


@pytest.mark.parametrize("image", ["nvcr.io/nvidia/tritonserver:26.01-py3", "mirror:5000/t@sha256:" + "0" * 64])
def test_later_ones_and_ones_named_by_digest_pass(tmp_path: Path, repository: Path, image: str) -> None:
    context = write_docker_context(tmp_path / "context", repository, "m", "gpu", image)
    assert f"FROM {image}\n" in (context / "Dockerfile").read_text()


def test_the_base_names_the_runtime_that_judged_and_brings_our_backend(tmp_path: Path) -> None:
    found = files(write_base_context(tmp_path / "base", "python:3.11-slim-bookworm", "1.32.0"))
    assert sorted(found) == ["Dockerfile", "model.py", "requirements-triton.lock"]
    assert found["requirements-triton.lock"] == (ROOT / "requirements-triton.lock").read_bytes()
    assert found["model.py"] == (TEMPLATES / "onnxruntime_backend" / "model.py").read_bytes()
    assert b"onnxruntime==1.32.0\n" in found["Dockerfile"]
    assert b"ARG BASE_IMAGE=python:3.11-slim-bookworm\n" in found["Dockerfile"]
    assert b"--require-hashes" in found["Dockerfile"]
