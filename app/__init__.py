"""Headgate: stands between an MLflow Model Registry and production."""
