"""KernelRidge: y = K(x, X_fit) a, with the dual coefficients a.

Source: `KernelRidge.predict` in sklearn/kernel_ridge.py and sklearn/metrics/pairwise.py. The linear kernel needs no
training rows: (x X_fit') a = x (X_fit' a). rbf: exp(-g |x - p|^2); poly: (g x.p + c)^d; sigmoid: tanh(g x.p + c),
with g = 1 / columns where it is not given. Other kernels have no conversion. All in 64 bits: the sum over training
rows has large terms of both signs.
"""

from typing import Any

import numpy as np
from skl2onnx.algebra.onnx_ops import OnnxAdd, OnnxExp, OnnxMul, OnnxPow, OnnxTanh
from sklearn.kernel_ridge import KernelRidge

from . import parts


def register() -> None:
    parts.regressor(KernelRidge, _convert)


def _convert(task: parts.Task) -> None:
    model = task.model
    dual = np.asarray(model.dual_coef_, dtype=np.float64).reshape(len(model.dual_coef_), -1)
    if model.kernel == "linear":
        task.answer(task.matmul(task.doubles(), np.asarray(model.X_fit_, dtype=np.float64).T @ dual))
        return
    task.answer(task.matmul(_kernel(task), dual))


def _kernel(task: parts.Task) -> Any:
    model = task.model
    points = np.asarray(model.X_fit_, dtype=np.float64)
    gamma = 1.0 / points.shape[1] if model.gamma is None else float(model.gamma)
    if model.kernel == "rbf":
        far = task.squared_distances(task.doubles(), points)
        return task.node(OnnxExp, task.node(OnnxMul, far, np.array([-gamma])))
    if model.kernel in ("poly", "polynomial", "sigmoid"):
        product = task.node(OnnxAdd, task.matmul(task.doubles(), gamma * points.T), np.array([float(model.coef0)]))
        if model.kernel == "sigmoid":
            return task.node(OnnxTanh, product)
        return task.node(OnnxPow, product, np.array([float(model.degree)]))
    raise NotImplementedError(f"KernelRidge has no conversion with kernel={model.kernel!r}.")
