"""CCA, PLSCanonical and PLSRegression: y = (x - mean) W' + b.

Source: `_PLS.predict` in sklearn/cross_decomposition/_pls.py; the coefficients hold the scaling of x already.
skl2onnx converts PLSRegression alone, into a graph whose shapes contradict each other.
"""

from skl2onnx.algebra.onnx_ops import OnnxAdd, OnnxSub
from sklearn.cross_decomposition import CCA, PLSCanonical, PLSRegression

from . import parts


def register() -> None:
    for cls in (CCA, PLSCanonical, PLSRegression):
        parts.regressor(cls, _convert)


def _convert(task: parts.Task) -> None:
    centred = task.node(OnnxSub, task.doubles(), task.model._x_mean.reshape(1, -1))
    moved = task.matmul(centred, task.model.coef_.T)
    task.answer(task.node(OnnxAdd, moved, task.model.intercept_.reshape(1, -1)))
