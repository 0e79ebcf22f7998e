"""The sandbox on the Docker Engine: each job in a container of its own, which is thrown away."""

from app.adapters.docker_sandbox.sandbox import DockerSandbox

__all__ = ["DockerSandbox"]
