"""HEADGATE_SANDBOX=docker from the alias to a reviewer's desk, on a real Docker Engine: no job runs anywhere else."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

import docker
import pytest

from examples.airbnb.stage import Stage, wait
from tests.docker_support import docker_engine, sandbox_image
from tests.e2e.models import register


@pytest.mark.on("sqlite")
def test_a_model_reaches_its_reviewer_by_containers_alone(
    backing: Callable[[], dict[str, str]], tmp_path: Path
) -> None:
    for name in ("engine", "policies", "bin"):
        (tmp_path / name).mkdir()
    # bubblewrap is there, but whoever would use it fails: there is no falling back.
    bwrap = tmp_path / "bin" / "bwrap"
    bwrap.write_text("#!/bin/sh\nexit 1\n")
    bwrap.chmod(bwrap.stat().st_mode | stat.S_IXUSR)
    with docker_engine(tmp_path / "engine") as host:
        # Given an installation whose sandbox is containers, and a model asked for in production,
        image = sandbox_image(host)
        settings = {
            **backing(),
            "HEADGATE_SANDBOX": "docker",
            "HEADGATE_SANDBOX_IMAGE": image,
            "HEADGATE_DOCKER_HOST": host,
            "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        }
        with Stage(tmp_path / "up", tmp_path / "policies", settings) as stage:
            version = register(stage.mlflow_uri, "boxed")
            stage.mlflow.set_registered_model_alias("boxed", "to-production", version)
            # when it waits for a reviewer,
            wait(lambda: stage.tags("boxed", version).get("headgate.status") == "approval", 240, "boxed to be judged")
            # then its evidence names the very image that held it, and no container is left.
            (found,) = stage.admin.get("/api/v1/promotions", model="boxed")["items"]
            shown = stage.admin.get(f"/api/v1/promotions/{found['id']}")
            engine = docker.DockerClient(base_url=host)
            try:
                layer = f"containers of {engine.images.get(image).id}"
                assert {shown["evidence"][step]["sandbox"] for step in ("scan", "convert")} == {layer}
                assert engine.containers.list(all=True, filters={"label": "headgate.sandbox"}) == []
            finally:
                engine.close()
