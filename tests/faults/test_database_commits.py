"""The connection to PostgreSQL breaks at a COMMIT, before the server gets it or before its answer is back: whoever
repeats what was asked gets one effect, and a worker goes on by itself."""

from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import make_url

from app.adapters.mlflow_webhook import Delivery, verify
from app.api.app import create_app
from app.db.migrate import upgrade
from app.db.models import Promotion
from app.db.session import Database
from app.domain.errors import Transient
from app.domain.policy import Rollout, default_policy
from app.services import principals, promotions, trail
from examples.airbnb.stage import signed
from tests.fakes import quick
from tests.plant import MODEL, World
from tests.proxy import Moment, Proxy, proxy
from tests.services import Postgres, postgres
from tests.serving import served

SECRET = "a-secret-of-tests"
MOMENTS: tuple[Moment, ...] = ("before", "after")
MANY = 60


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    with postgres(tmp_path_factory.mktemp("postgres")) as running:
        yield running


class Site:
    """The API and a worker behind the proxy, and a second way to the database that nothing cuts."""

    def __init__(self, world: World, line: Proxy, http: httpx.Client) -> None:
        self.world, self.line, self.http = world, line, http
        people = {role: principals.create(world.database, role, role, "test") for role in ("requester", "reviewer")}
        self.people = {role: {"Authorization": f"Bearer {token}"} for role, token in people.items()}

    def ask(self, model: str) -> int:
        """A model of its own for a promotion of its own."""
        self.world.policies.known[model] = quick(default_policy(model), rollout=Rollout(soak=timedelta(0)))
        self.world.registry.register(model, "1", self.world.folder / "model-1")
        return promotions.request(self.world.core, model, "1", "production", "", "somebody").id

    def until_done(self, send: Callable[[], httpx.Response]) -> httpx.Response:
        """Repeat a request while it is told to; each refusal is a problem document without a word of the driver."""
        for _ in range(5):
            answer = send()
            if answer.status_code != 503:
                return answer
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.headers["retry-after"]
            assert answer.json()["type"] == "urn:headgate:problem:unavailable"
            assert not {"psycopg", "sqlalchemy", "127.0.0.1", "COMMIT", "connection"} & set(answer.text.split())
        raise AssertionError(answer.text)

    def every_cut(self, moment: Moment, once: Callable[[int], None]) -> None:
        """Do something once for each COMMIT that it takes, cut at that one."""
        for number in range(1, MANY):
            before = self.line.cuts
            self.line.cut(number, moment)
            once(number)
            self.line.heal()
            if self.line.cuts == before:
                assert number > 1
                return
        raise AssertionError("it does not come to an end")

    def leaves(self, kind: str, promotion: int) -> list[dict[str, Any]]:
        found = [leaf["body"] for leaf in trail.page(self.world.database, 0, 5000) if leaf["kind"] == kind]
        return [body for body in found if body["promotion"] == promotion]


def check(headers: Mapping[str, str], body: bytes, now: float) -> Delivery:
    return verify([SECRET], headers, body, now, 300)


@pytest.fixture
def site(server: Postgres, tmp_path: Path) -> Iterator[Site]:
    url = make_url(server.fresh())
    upgrade(url.render_as_string(hide_password=False))
    with proxy(url.port or 0) as line:
        database = Database(url.set(port=line.port).render_as_string(hide_password=False))
        world = World(database, tmp_path)
        with (
            served(create_app(world.core, check, world.store)) as address,
            httpx.Client(base_url=address, trust_env=False, timeout=30) as http,
        ):
            yield Site(world, line, http)
        database.close()


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_promotion_that_is_asked_for_again_with_its_key_is_one_promotion(site: Site, moment: Moment) -> None:
    def once(number: int) -> None:
        model = f"model-{number}"
        site.world.registry.register(model, "1")
        body = {"model": model, "version": "1", "environment": "production", "reason": "now"}
        headers = {**site.people["requester"], "Idempotency-Key": model}
        first = site.until_done(lambda: site.http.post("/api/v1/promotions", json=body, headers=headers))
        site.line.heal()
        again = site.http.post("/api/v1/promotions", json=body, headers=headers)
        assert (first.status_code, again.status_code) == (201, 201), first.text
        listed = site.http.get("/api/v1/promotions", params={"model": model}, headers=headers).json()["items"]
        assert [row["id"] for row in listed] == [first.json()["id"]] == [again.json()["id"]]
        assert len(site.leaves("promotion.requested", first.json()["id"])) == 1

    site.every_cut(moment, once)


@pytest.mark.parametrize("moment", MOMENTS)
def test_an_approval_that_is_sent_again_counts_once(site: Site, moment: Moment) -> None:
    def once(number: int) -> None:
        site.line.heal()
        promotion_id = site.ask(f"model-{number}")
        digest = site.world.run(promotion_id)["digest"]
        site.line.cut(number, moment)
        body = {"decision": "approve", "digest": digest, "reason": "good"}
        path = f"/api/v1/promotions/{promotion_id}/approvals"
        answer = site.until_done(lambda: site.http.post(path, json=body, headers=site.people["reviewer"]))
        # Whoever did not hear the first answer is told that the decision stands.
        assert answer.status_code == 201 or "already decided" in answer.json()["title"]
        site.line.heal()
        assert len(site.leaves("approval", promotion_id)) == 1
        assert len(site.world.show(promotion_id)["approvals"]) == 1
        assert site.world.run(promotion_id)["state"] == "LIVE"

    site.every_cut(moment, once)


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_webhook_that_is_sent_again_is_acted_on(site: Site, moment: Moment) -> None:
    def once(number: int) -> None:
        body = (
            b'{"entity": "model_version_alias", "action": "created", "timestamp": "2026-01-01T00:00:00Z", "data": '
            b'{"name": "' + MODEL.encode() + b'", "alias": "to-production", "version": "1"}}'
        )
        headers = signed(SECRET, body)
        answer = site.until_done(lambda: site.http.post("/webhooks/mlflow", content=body, headers=headers))
        assert answer.status_code == 202
        site.line.heal()
        # A call that was recorded while its answer was lost is a duplicate; the poll finds that nobody acted on it.
        assert not answer.json()["duplicate"] or moment == "after"
        again = site.http.post("/webhooks/mlflow", content=body, headers=headers)
        assert again.json()["duplicate"]

    site.every_cut(moment, once)


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_worker_goes_on_after_any_cut_and_takes_no_state_twice(site: Site, moment: Moment) -> None:
    def once(number: int) -> None:
        site.line.heal()
        promotion_id = site.ask(f"model-{number}")
        ran = len(site.world.sandbox.jobs)
        site.line.cut(number, moment)
        work(site, promotion_id)
        site.line.heal()
        assert site.world.sandbox.jobs[ran:] == ["scan", "convert", "score"]
        shown = site.world.show(promotion_id)
        assert shown["state"] == "APPROVAL", shown["last_error"]
        moves = [(body["from"], body["to"]) for body in site.leaves("promotion.transition", promotion_id)]
        assert len(moves) == len(set(moves))
        assert shown["attempt"] == 0

    site.every_cut(moment, once)


def work(site: Site, promotion_id: int) -> None:
    """What workers do: try, put it off when the database is away, and try again when the lease is over."""
    for _ in range(3):
        try:
            site.world.runner.advance(promotion_id)
        except Transient:
            expire_lease(site.world, promotion_id)


def expire_lease(world: World, promotion_id: int) -> None:
    with world.database.begin() as session:
        row = session.get_one(Promotion, promotion_id)
        row.lease_until = row.created_at - timedelta(hours=1)
