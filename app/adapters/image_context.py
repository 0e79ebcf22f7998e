"""Writes the folders from which images are built: a release on the CPU or the GPU, and the base of those on the CPU."""

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from app.domain.errors import Fault

_IMAGE = re.compile(r"[a-z0-9][A-Za-z0-9._/:@-]*")
_NGC = re.compile(r"/tritonserver:(\d\d)\.(\d\d)")
# Triton before this has known holes that one request can use.
_OLDEST = (25, 7)


def write_release_context(
    context: Path,
    templates: Path,
    instance: Literal["cpu", "gpu"],
    model: str,
    repository: Path,
    base_image: str,
) -> Path:
    """Write the build folder of one release and return it; what was there is replaced.

    `templates` is the folder image_templates, `repository` what `write_repository` made, and `base_image` the image of
    `write_base_context` for the CPU or NVIDIA's tritonserver image for the GPU.

    Raises:
        Fault: no image's name, or an image of Triton that is too old.
    """
    ngc = _NGC.search(base_image)
    if instance == "gpu" and ngc and (int(ngc[1]), int(ngc[2])) < _OLDEST:
        raise Fault(f"{base_image} has known vulnerabilities.", "Name one of 25.07 or later in HEADGATE_TRITON_IMAGE.")
    values = {"base_image": _checked(base_image), "model": model}
    _write_dockerfile(context, templates, f"triton-{instance}/Dockerfile.j2", values)
    shutil.copy(templates / "serve.sh", context)
    shutil.copytree(repository / model, context / "models" / model)
    return context


def write_base_context(context: Path, templates: Path, lock: Path, base_image: str, onnxruntime: str) -> Path:
    """Write the build folder of the CPU base and return it; what was there is replaced.

    `lock` is requirements-triton.lock, `base_image` an image with python3, its shared library and pip, and
    `onnxruntime` the version to serve with: the one that judges the models.

    Raises:
        Fault: no image's name.
    """
    values = {"base_image": _checked(base_image), "onnxruntime": onnxruntime}
    _write_dockerfile(context, templates, "triton-cpu/Dockerfile.base.j2", values)
    shutil.copy(lock, context / "requirements-triton.lock")
    shutil.copy(templates / "onnxruntime_backend" / "model.py", context)
    return context


def _write_dockerfile(context: Path, templates: Path, template: str, values: Mapping[str, str]) -> None:
    if context.exists():
        shutil.rmtree(context)
    context.mkdir(parents=True)
    # A Dockerfile is no HTML: its values are checked by their form instead of escaped.
    environment = Environment(  # noqa: S701
        loader=FileSystemLoader(templates), undefined=StrictUndefined, keep_trailing_newline=True
    )
    text = environment.get_template(template).render(values)
    (context / "Dockerfile").write_text(text, encoding="utf-8")


def _checked(image: str) -> str:
    if not _IMAGE.fullmatch(image):
        raise Fault(f"{image!r} is no name of an image.", "Correct HEADGATE_TRITON_IMAGE.")
    return image
