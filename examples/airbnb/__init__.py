"""The Airbnb price example: data, models and training that logs to MLflow."""
