"""Conversions of scikit-learn's estimators that skl2onnx lacks or gets wrong, one file each with its derivation."""

import functools
import importlib

CONVERTERS = (
    "chain",
    "cross_decomposition",
    "dummy",
    "hist_gradient_boosting",
    "isotonic",
    "kernel_ridge",
    "label_propagation",
    "multi_output",
    "nearest_centroid",
    "output_code",
    "radius_neighbors",
    "self_training",
    "threshold",
    "transformed_target",
    "voting",
)


@functools.cache
def register() -> None:
    """Make all of them known to skl2onnx, in this process, once."""
    for name in CONVERTERS:
        importlib.import_module(f".{name}", __package__).register()
