"""Tests of the registry adapter on a real MLflow server; versions are made as MLflow's own client makes them."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from app.adapters.mlflow_registry import MlflowRegistry
from app.domain.errors import Fault, Transient
from app.domain.registry import ModelView
from tests import services

ODD_NAMES = [
    "o'brien",
    "both ' and \"",
    "100 % _wild_",
    "back\\slash\\",
    "naïve ☃ 名前",
    "a;b--c#d?e&f=g",
    "(select) and",
]


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with services.mlflow_server(tmp_path_factory.mktemp("mlflow")) as address:
        yield address


@pytest.fixture(scope="module")
def registry(uri: str) -> Iterator[MlflowRegistry]:
    adapter = MlflowRegistry(uri, 10)
    yield adapter
    adapter.close()


@pytest.fixture(scope="module")
def client(uri: str) -> MlflowClient:
    return MlflowClient(uri)


def register(client: MlflowClient, name: str, versions: int = 1) -> list[ModelVersion]:
    """A new model whose versions come from one run with one file of artifacts."""
    run = client.create_run("0", tags={"mlflow.user": "ada"})
    client.log_text(run.info.run_id, "flavors: {}", "model/MLmodel")
    client.create_registered_model(name)
    source = f"{run.info.artifact_uri}/model"
    return [client.create_model_version(name, source, run.info.run_id) for _ in range(versions)]


def seen(registry: MlflowRegistry, name: str) -> ModelView | None:
    """The model as both ways of reading it show it."""
    alone = registry.read_model(name)
    assert [view for view in registry.snapshot() if view.name == name] == ([alone] if alone else [])
    return alone


def test_a_view_holds_aliases_stages_and_asks_and_nothing_else(registry: MlflowRegistry, client: MlflowClient) -> None:
    register(client, "watched", versions=4)
    client.set_registered_model_alias("watched", "to-production", "2")
    client.set_model_version_tag("watched", "1", "headgate.to", "staging")
    client.set_model_version_tag("watched", "1", "headgate.status", "live")
    registry.set_stage("watched", "3", "Production", archive=False)
    assert seen(registry, "watched") == ModelView(
        "watched", {"to-production": "2"}, {"3": "Production"}, {"1": "staging"}
    )
    client.delete_model_version("watched", "2")
    assert seen(registry, "watched") == ModelView("watched", {}, {"3": "Production"}, {"1": "staging"})
    client.delete_registered_model("watched")
    assert seen(registry, "watched") is None


def test_what_is_no_model_is_none(uri: str, registry: MlflowRegistry) -> None:
    prompt = {"name": "a prompt", "tags": [{"key": "mlflow.prompt.is_prompt", "value": "true"}]}
    httpx.post(f"{uri}/api/2.0/mlflow/registered-models/create", json=prompt).raise_for_status()
    for name in ("nobody", "no/name", "", "a prompt"):
        assert seen(registry, name) is None
    assert registry.version("nobody", "1") is None
    assert registry.version("a prompt", "x") is None


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_name_may_hold_any_character(registry: MlflowRegistry, client: MlflowClient, name: str) -> None:
    register(client, name, versions=2)
    registry.set_alias(name, "to-staging", "1")
    registry.set_version_tag(name, "2", "headgate.to", "staging")
    registry.set_stage(name, "2", "Staging", archive=True)
    assert seen(registry, name) == ModelView(name, {"to-staging": "1"}, {"2": "Staging"}, {"2": "staging"})
    registry.delete_alias(name, "to-staging", "1")
    registry.delete_version_tag(name, "2", "headgate.to", "staging")
    registry.set_stage(name, "2", "None", archive=True)
    assert seen(registry, name) == ModelView(name)
    client.delete_registered_model(name)


def test_small_pages_show_the_same_as_large_ones(uri: str, registry: MlflowRegistry, client: MlflowClient) -> None:
    for number in range(7):
        register(client, f"page {number}", versions=1 + number % 3)
        client.set_registered_model_alias(f"page {number}", "to-staging", "1")
        registry.set_stage(f"page {number}", "1", "Staging", archive=False)
    whole = list(registry.snapshot())
    small = MlflowRegistry(uri, models_page=2, versions_page=3)
    assert list(small.snapshot()) == whole
    assert len({view.name for view in whole}) == len(whole) >= 7
    small.close()


def test_a_tag_is_deleted_only_while_it_holds_the_value(registry: MlflowRegistry, client: MlflowClient) -> None:
    register(client, "tags")
    registry.set_version_tag("tags", "1", "headgate.to", "production")
    registry.delete_version_tag("tags", "1", "headgate.to", "staging")
    assert client.get_model_version("tags", "1").tags == {"headgate.to": "production"}
    registry.delete_version_tag("tags", "1", "headgate.to", "production")
    assert client.get_model_version("tags", "1").tags == {}


def test_an_alias_is_deleted_only_while_it_points_there(registry: MlflowRegistry, client: MlflowClient) -> None:
    register(client, "aliases", versions=2)
    registry.set_alias("aliases", "to-production", "1")
    registry.set_alias("aliases", "to-production", "2")
    registry.delete_alias("aliases", "to-production", "1")
    assert client.get_registered_model("aliases").aliases == {"to-production": "2"}
    registry.delete_alias("aliases", "to-production", "2")
    assert client.get_registered_model("aliases").aliases == {}


def test_archiving_moves_the_versions_that_were_there(registry: MlflowRegistry, client: MlflowClient) -> None:
    register(client, "stages", versions=2)
    registry.set_stage("stages", "1", "Production", archive=False)
    registry.set_stage("stages", "2", "Production", archive=True)
    assert seen(registry, "stages") == ModelView("stages", {}, {"1": "Archived", "2": "Production"})


def test_writing_to_a_version_that_is_gone(registry: MlflowRegistry, client: MlflowClient) -> None:
    register(client, "gone")
    client.delete_model_version("gone", "1")
    for model in ("gone", "never there"):
        registry.set_version_tag(model, "1", "key", "value")
        registry.delete_version_tag(model, "1", "key", "value")
        registry.delete_alias(model, "alias", "1")
        registry.set_stage(model, "1", "Staging", archive=True)
        with pytest.raises(Fault, match="not found"):
            registry.set_alias(model, "production", "1")


def test_a_version_tells_its_run_and_who_ran_it(registry: MlflowRegistry, client: MlflowClient) -> None:
    made = register(client, "told")[0]
    info = registry.version("told", "1")
    assert info is not None
    assert (info.model, info.version, info.run_id, info.source) == ("told", "1", made.run_id, made.source)
    assert (info.user, info.ready) == ("ada", True)
    client.delete_run(str(made.run_id))
    assert registry.version("told", "2") is None


def test_a_wrong_login_never_shows_in_an_error(uri: str) -> None:
    adapter = MlflowRegistry(uri.replace("://", "://ada:secret@"), 5)
    assert adapter.read_model("nobody") is None
    adapter.close()
    away = MlflowRegistry(f"http://ada:secret@127.0.0.1:{services.free_port()}", 5)
    with pytest.raises(Transient, match="ConnectError") as caught:
        away.read_model("nobody")
    assert "secret" not in str(caught.value)
    away.close()


@pytest.mark.parametrize("bad", ["", "sqlite:///mlflow.db", "databricks", "http://", "http://host/?a=b", "http://[::1"])
def test_an_address_that_is_none_is_our_fault(bad: str) -> None:
    with pytest.raises(Fault, match="HEADGATE_MLFLOW_URI"):
        MlflowRegistry(bad)


def test_a_server_that_is_no_mlflow_is_our_fault(uri: str) -> None:
    adapter = MlflowRegistry(f"{uri}/health", 5)
    with pytest.raises(Fault, match="HEADGATE_MLFLOW_URI"):
        adapter.read_model("any")
    adapter.close()


def test_a_server_may_go_and_come_back(tmp_path: Path) -> None:
    port = services.free_port()
    adapter = MlflowRegistry(f"http://127.0.0.1:{port}", 5)
    with services.mlflow_server(tmp_path, port):
        assert adapter.ensure_webhook("http://127.0.0.1:9/hook", "one")
        assert not adapter.ensure_webhook("http://127.0.0.1:9/hook", "one")
    for call in (
        lambda: adapter.read_model("any"),
        lambda: list(adapter.snapshot()),
        lambda: adapter.set_version_tag("any", "1", "key", "value"),
        lambda: adapter.download("any", "1", tmp_path / "into"),
        lambda: adapter.ensure_webhook("http://127.0.0.1:9/hook", "one"),
    ):
        with pytest.raises(Transient, match="did not answer"):
            call()
    with services.mlflow_server(tmp_path, port):
        assert not adapter.ensure_webhook("http://127.0.0.1:9/hook", "one")
        assert list(adapter.snapshot()) == []
    adapter.close()
