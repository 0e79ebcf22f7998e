"""Tests of the registry adapter on a real MLflow server; versions are made as MLflow's own client makes them."""

import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from mlflow import MlflowClient
from mlflow.entities import LoggedModelOutput
from mlflow.entities.model_registry import ModelVersion
from mlflow.entities.webhook import WebhookEvent

from app.adapters import mlflow_webhook
from app.adapters.mlflow_registry import MlflowRegistry
from app.domain.errors import Fault, Rejected, Transient, Unauthorized
from app.domain.registry import Event, ModelView
from app.ports import Written
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
    assert registry.delete_version_tag("tags", "1", "headgate.to", "staging") is Written.NOT
    assert client.get_model_version("tags", "1").tags == {"headgate.to": "production"}
    assert registry.delete_version_tag("tags", "1", "headgate.to", "production") is Written.DONE
    assert client.get_model_version("tags", "1").tags == {}


def test_an_alias_is_deleted_only_while_it_points_there(registry: MlflowRegistry, client: MlflowClient) -> None:
    register(client, "aliases", versions=2)
    registry.set_alias("aliases", "to-production", "1")
    registry.set_alias("aliases", "to-production", "2")
    assert registry.delete_alias("aliases", "to-production", "1") is Written.NOT
    assert client.get_registered_model("aliases").aliases == {"to-production": "2"}
    assert registry.delete_alias("aliases", "to-production", "2") is Written.DONE
    assert client.get_registered_model("aliases").aliases == {}


def test_a_stage_is_left_only_if_it_is_the_one_expected(registry: MlflowRegistry, client: MlflowClient) -> None:
    register(client, "expected")
    assert registry.set_stage("expected", "1", "Archived", archive=False, only_from=["Staging"]) is Written.NOT
    assert registry.set_stage("expected", "1", "Staging", archive=False, only_from=["None"]) is Written.DONE
    assert registry.set_stage("expected", "1", "Staging", archive=False) is Written.ALREADY
    assert seen(registry, "expected") == ModelView("expected", {}, {"1": "Staging"}, {})


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
        assert registry.delete_version_tag(model, "1", "key", "value") is Written.ALREADY
        assert registry.delete_alias(model, "alias", "1") is Written.ALREADY
        assert registry.set_stage(model, "1", "Staging", archive=True) is Written.NOT
        assert registry.set_alias(model, "production", "1") is Written.NOT


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


FILES = {
    "MLmodel": b"flavors: {}",
    "empty": b"",
    "code/deep er/ü ☃.py": b"print()",
    "data.csv.gz": b"\x1f\x8b not really compressed",
    "model.bin": bytes(range(256)) * 20_000,
}


def write(folder: Path) -> Path:
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def read(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def copied(client: MlflowClient, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model with one version for each kind of source that MLflow takes."""
    files = str(write(tmp_path_factory.mktemp("files")))
    run = client.create_run("0")
    client.log_artifacts(run.info.run_id, files, "in run")
    logged = client.create_logged_model("0", name="logged", source_run_id=run.info.run_id)
    client.log_model_artifacts(logged.model_id, files)
    client.finalize_logged_model(logged.model_id, "READY")
    client.log_outputs(run.info.run_id, [LoggedModelOutput(logged.model_id, step=0)])
    client.create_registered_model("to be copied")
    post = {"name": "to be copied", "run_id": run.info.run_id}
    for fields in (
        {**post, "source": f"{run.info.artifact_uri}/in run"},
        {**post, "source": f"runs:/{run.info.run_id}/in run"},
        {**post, "source": f"runs:/{run.info.run_id}/logged"},
        {"name": "to be copied", "source": f"models:/{logged.model_id}", "model_id": logged.model_id},
        {"name": "to be copied", "source": "models:/to be copied/1"},
    ):
        create_version(client.tracking_uri, fields)
    return "to be copied"


def create_version(uri: str, fields: dict[str, str]) -> None:
    httpx.post(f"{uri}/api/2.0/mlflow/model-versions/create", json=fields).raise_for_status()


@pytest.mark.parametrize("version", ["1", "2", "3", "4", "5"])
def test_the_copy_is_what_was_logged(registry: MlflowRegistry, copied: str, version: str, tmp_path: Path) -> None:
    registry.download(copied, version, tmp_path / "into")
    assert read(tmp_path / "into") == FILES


def test_missing_artifacts_are_the_models_fault(
    uri: str, registry: MlflowRegistry, client: MlflowClient, tmp_path: Path
) -> None:
    run = client.create_run("0")
    client.create_registered_model("missing")
    for source in (f"{run.info.artifact_uri}/nothing", f"runs:/{run.info.run_id}/nothing"):
        create_version(uri, {"name": "missing", "source": source, "run_id": run.info.run_id})
    for number, version in enumerate(["1", "2", "77", "x"]):
        with pytest.raises(Rejected, match=r"(missing|is gone).* register it again"):
            registry.download("missing", version, tmp_path / str(number))


def test_a_model_that_is_too_large_is_refused(uri: str, copied: str, tmp_path: Path) -> None:
    adapter = MlflowRegistry(uri, max_bytes=1_000_000)
    with pytest.raises(Rejected, match="1000000 bytes"):
        adapter.download(copied, "1", tmp_path / "into")
    adapter.close()


def test_a_copy_that_takes_too_long_is_tried_again(uri: str, copied: str, tmp_path: Path) -> None:
    adapter = MlflowRegistry(uri, download_timeout_s=0)
    with pytest.raises(Transient, match="took longer than 0 s"):
        adapter.download(copied, "1", tmp_path / "into")
    adapter.close()


def hooks(client: MlflowClient) -> list[tuple[str, str, str]]:
    return sorted((hook.name, hook.url, hook.status.value) for hook in client.list_webhooks())


def test_there_is_one_webhook_of_ours(registry: MlflowRegistry, client: MlflowClient) -> None:
    here, there = "http://127.0.0.1:9/here", "http://127.0.0.1:9/there"
    theirs = client.create_webhook("theirs", here, [WebhookEvent("prompt", "created")])
    client.create_webhook("headgate", here, [WebhookEvent("prompt", "created")])
    client.create_webhook("headgate", there, [WebhookEvent("prompt", "created")])
    made = [registry.ensure_webhook(here, "one"), registry.ensure_webhook(here, "one")]
    assert (made, hooks(client)) == ([True, False], [("headgate", here, "ACTIVE"), ("theirs", here, "ACTIVE")])
    ours = next(hook for hook in client.list_webhooks() if hook.name == "headgate")
    client.update_webhook(ours.webhook_id, status="DISABLED")
    made = [registry.ensure_webhook(here, "one"), registry.ensure_webhook(here, "two")]
    assert (made, hooks(client)) == ([True, True], [("headgate", here, "ACTIVE"), ("theirs", here, "ACTIVE")])
    assert registry.ensure_webhook(there, "two")
    assert hooks(client) == [("headgate", there, "ACTIVE"), ("theirs", here, "ACTIVE")]
    client.delete_webhook(theirs.webhook_id)


def test_a_url_that_mlflow_refuses_comes_with_the_remedy(registry: MlflowRegistry) -> None:
    with pytest.raises(Fault, match="MLFLOW_WEBHOOK_ALLOWED_SCHEMES"):
        registry.ensure_webhook("gopher://127.0.0.1/", "secret")


def test_what_mlflow_sends_is_verified(registry: MlflowRegistry, client: MlflowClient) -> None:
    with services.inbox() as (url, deliveries):
        registry.ensure_webhook(url, "the secret")
        time.sleep(1.1)  # MLflow may still hold the list of webhooks from before; see services.mlflow_server
        name = ODD_NAMES[4]
        register(client, name)
        registry.set_alias(name, "to-production", "1")
        registry.set_version_tag(name, "1", "headgate.to", "staging")
        registry.delete_version_tag(name, "1", "headgate.to", "staging")
        registry.delete_alias(name, "to-production", "1")
        received = [deliveries.get(timeout=30) for _ in range(6)]
    events, said = set(), set()
    for headers, body in received:
        delivery = mlflow_webhook.verify(["the secret"], headers, body, time.time(), 60)
        assert delivery.model == name
        events.add(f"{delivery.entity}.{delivery.action}")
        said.add(delivery.event)
        assert abs(delivery.sent_at.timestamp() - delivery.timestamp) < 2
        with pytest.raises(Unauthorized):
            mlflow_webhook.verify(["another"], headers, body, time.time(), 60)
    assert events == {
        "registered_model.created",
        "model_version.created",
        "model_version_alias.created",
        "model_version_tag.set",
        "model_version_tag.deleted",
        "model_version_alias.deleted",
    }
    alias, tag = "alias:to-production", "tag:headgate.to"
    assert said == {
        None,
        *(Event(alias, None, version) for version in ("1", None)),
        *(Event(tag, "1", value) for value in ("staging", None)),
    }


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
