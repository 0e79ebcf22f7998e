"""The folder that Triton's wheel was installed into, as uv and as pip leave it."""

import sys
from pathlib import Path

from app.adapters.triton_process import runtime


def test_what_pip_compiled_is_not_taken_for_a_part_of_the_backend(tmp_path: Path) -> None:
    triton, model = tmp_path / "triton", tmp_path / "model.py"
    server = triton / "pytriton" / "tritonserver"
    stub = server / "python_backend_stubs" / f"3.{sys.version_info.minor}" / "triton_python_backend_stub"
    utils = server / "backends" / "python" / "triton_python_backend_utils.py"
    compiled = server / "backends" / "python" / "__pycache__" / "triton_python_backend_utils.pyc"
    (triton / "numpy").mkdir(parents=True)
    for file in (server / "bin" / "tritonserver", stub, utils, compiled, model):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(file.name)
    found = runtime.prepare(tmp_path / "home", triton, model, Path(sys.executable))
    assert {path.name for path in (found.backends / "python").iterdir()} == {stub.name, utils.name}
    assert [path.name for path in (found.backends / "onnxruntime").iterdir()] == ["model.py"]
