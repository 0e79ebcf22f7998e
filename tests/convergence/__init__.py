"""Convergence with a real MLflow server: people, proxies that lose and cut, processes that die, and the checks."""
