"""Builds the base image for releases on the CPU: `python -m app.triton_image`, which `make triton-image` runs."""

import shutil
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from app.adapters.docker_engine import DockerEngine
from app.domain.errors import HeadgateError
from app.packaging import write_base_context
from app.settings import Settings

PYTHON_IMAGE = "python:3.11-slim-bookworm"


def main() -> int:
    """Build the image that HEADGATE_TRITON_IMAGE names, on the engine of HEADGATE_DOCKER_HOST."""
    settings = Settings()
    folder = Path(tempfile.mkdtemp(prefix="headgate-base-"))
    try:
        # ONNX Runtime in the image is the one that judges the models here.
        write_base_context(folder / "context", PYTHON_IMAGE, version("onnxruntime"))
        image = DockerEngine(settings.docker_host).build(folder / "context", settings.triton_image, {})
    except HeadgateError as error:
        print(f"headgate: {error}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(f"{settings.triton_image}: {image}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
