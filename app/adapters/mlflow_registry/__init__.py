"""The port Registry on MLflow: registry reads and writes over plain REST, artifacts as MLflow stores them."""

from app.adapters.mlflow_registry.registry import MlflowRegistry

__all__ = ["MlflowRegistry"]
