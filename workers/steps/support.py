"""What the ONNX Runtime that will serve a promotion loads."""

from importlib.metadata import PackageNotFoundError, version

from app.domain.onnx_support import Support, of_image, of_runtime
from workers.context import Context


def of_target(context: Context) -> Support:
    """Apart from NVIDIA's images every target has the one that is here."""
    target = context.policy.target
    in_image = (target.kind or context.plant.default_target) == "docker"
    image = context.plant.base_images.get(target.instance, "") if in_image else ""
    return of_image(image) or of_runtime(_installed_runtime())


def _installed_runtime() -> str:
    try:
        return version("onnxruntime")
    except PackageNotFoundError:
        return version("onnxruntime-gpu")  # the extra `gpu` takes its place
