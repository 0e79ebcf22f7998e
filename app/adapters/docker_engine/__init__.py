"""Builds release images and runs them, through the Docker Engine's API."""

from app.adapters.docker_engine.builder import DockerEngine
from app.adapters.docker_engine.server import TritonDocker

__all__ = ["DockerEngine", "TritonDocker"]
