"""Small models that stories register, as a data scientist would log them."""

from collections.abc import Sequence

import mlflow
import numpy as np
from mlflow.models import infer_signature
from sklearn.linear_model import LinearRegression

X = np.arange(12, dtype=np.float32).reshape(6, 2)
Y = X @ np.array([1.0, 2.0], dtype=np.float32)


def register(uri: str, name: str, signature: bool = True, packages: Sequence[str] = ("scikit-learn",)) -> str:
    """Log a linear model to MLflow at `uri` under `name`; returns its version. It answers x1 + 2 * x2."""
    mlflow.set_tracking_uri(uri)
    mlflow.set_experiment("stories")
    with mlflow.start_run():
        info = mlflow.sklearn.log_model(
            LinearRegression().fit(X, Y),
            name="model",
            registered_model_name=name,
            signature=infer_signature(X, Y) if signature else None,
            input_example=X if signature else None,
            pip_requirements=list(packages),
        )
    return str(info.registered_model_version)
