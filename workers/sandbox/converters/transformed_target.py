"""TransformedTargetRegressor: the regressor's answer, turned back into the target's own units.

Source: `TransformedTargetRegressor.predict` in sklearn/compose/_target.py. What turns it back is a NumPy function
with an operator of ONNX (exp, expm1, log, log1p, sqrt, square), or a StandardScaler (y s + m) or MinMaxScaler ((y -
min) / s); anything else is code of somebody's own and has no conversion.
"""

from typing import Any

import numpy as np
from skl2onnx.algebra.onnx_ops import (
    OnnxAdd,
    OnnxCast,
    OnnxDiv,
    OnnxExp,
    OnnxIdentity,
    OnnxLog,
    OnnxMul,
    OnnxReshape,
    OnnxSqrt,
    OnnxSub,
)
from sklearn.compose import TransformedTargetRegressor
from sklearn.preprocessing import FunctionTransformer, MinMaxScaler, StandardScaler

from . import parts

_DOUBLE = 11


def register() -> None:
    parts.regressor(TransformedTargetRegressor, _convert)


def _convert(task: parts.Task) -> None:
    made = task.node(OnnxIdentity, task.sub(task.model.regressor_, task.x))
    column = task.node(OnnxCast, made, to=_DOUBLE)
    if task.model._training_dim == 1:
        column = task.node(OnnxReshape, column, np.array([-1, 1], dtype=np.int64))
    task.answer(_inverse(task, column))


def _inverse(task: parts.Task, value: Any) -> Any:
    back = task.model.transformer_
    if isinstance(back, StandardScaler):
        scale = np.ones(1) if back.scale_ is None else back.scale_
        mean = np.zeros(1) if back.mean_ is None else back.mean_
        return task.node(OnnxAdd, task.node(OnnxMul, value, scale.reshape(1, -1)), mean.reshape(1, -1))
    if isinstance(back, MinMaxScaler) and not back.clip:
        return task.node(OnnxDiv, task.node(OnnxSub, value, back.min_.reshape(1, -1)), back.scale_.reshape(1, -1))
    if isinstance(back, FunctionTransformer):
        return _function(task, back.inverse_func, value)
    raise NotImplementedError(f"TransformedTargetRegressor has no conversion with a {type(back).__name__}.")


def _function(task: parts.Task, function: Any, value: Any) -> Any:
    one = np.ones(1)
    if function is None:
        return value
    if function is np.exp:
        return task.node(OnnxExp, value)
    if function is np.expm1:
        return task.node(OnnxSub, task.node(OnnxExp, value), one)
    if function is np.log:
        return task.node(OnnxLog, value)
    if function is np.log1p:
        return task.node(OnnxLog, task.node(OnnxAdd, value, one))
    if function is np.sqrt:
        return task.node(OnnxSqrt, value)
    if function is np.square:
        return task.node(OnnxMul, value, value)
    raise NotImplementedError(f"The target's function {getattr(function, '__name__', function)!a} has no conversion.")
