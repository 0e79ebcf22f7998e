"""TARGET=docker from the alias to answers, on a real Docker Engine: the release is an image and runs as a container."""

import os
from collections.abc import Callable
from pathlib import Path

import docker
import httpx
import pytest

from examples.airbnb.stage import Stage, wait
from tests.docker_support import docker_engine, triton_cpu_base
from tests.e2e.models import register


def test_a_release_goes_live_as_a_container(backing: Callable[[], dict[str, str]], tmp_path: Path) -> None:
    (tmp_path / "engine").mkdir()
    (tmp_path / "policies").mkdir()
    with docker_engine(tmp_path / "engine") as host:
        # Given an installation that releases to Docker, and a model asked for in staging,
        settings = {
            **backing(),
            "HEADGATE_TARGET": "docker",
            "HEADGATE_DOCKER_HOST": host,
            "HEADGATE_TRITON_IMAGE": triton_cpu_base(host),
        }
        with Stage(tmp_path / "up", tmp_path / "policies", settings) as stage:
            version = register(stage.mlflow_uri, "boxed")
            stage.mlflow.set_registered_model_alias("boxed", "to-staging", version)
            # when it is live,
            wait(lambda: stage.tags("boxed", version).get("headgate.status") == "live", 240, "boxed to be live")
            # then one container of ours runs, locked in, and the router's answers come from it.
            engine = docker.DockerClient(base_url=host)
            try:
                (container,) = engine.containers.list(filters={"label": "headgate.release"})
                assert container.attrs["HostConfig"]["ReadonlyRootfs"]
                assert container.attrs["HostConfig"]["CapDrop"] == ["ALL"]
                (release,) = stage.admin.get("/api/v1/releases", model="boxed")
                assert release["name"] == container.labels["headgate.release"]
            finally:
                engine.close()
            address = stage.found["router"]["staging"]
            answer = httpx.post(
                f"{address}/v2/models/boxed/infer",
                json={"inputs": [{"name": "input", "shape": [1, 2], "datatype": "FP32", "data": [3.0, 4.0]}]},
                trust_env=False,
            )
            assert answer.status_code == 200, answer.text
            assert answer.json()["outputs"][0]["data"] == pytest.approx([11.0], abs=1e-3)
            assert answer.headers["X-Headgate-Release"].startswith(f"{version}@")
            found = stage.admin.get(f"/api/v1/promotions/{release['promotion_id']}")
            assert found["evidence"]["build"]["image"].startswith("sha256:")
            assert found["evidence"]["prove"]["instance"] == "KIND_CPU"
            assert os.path.sep not in found["evidence"]["build"]["name"]
