"""The router while clients call at full speed: rollouts, kills, reloads and restarts."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from app.adapters.haproxy import HAProxyRouter
from app.domain.errors import LostLease, Transient
from app.ports import Endpoint, Route, Server
from tests.haproxy_support import ENVIRONMENT, MODEL, Load, Rig, Upstream, eventually, report


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path)
    rig.start(Route(MODEL, ENVIRONMENT, rig.one.server()))
    yield rig
    rig.stop()


def load(rig: Rig) -> Load:
    return Load(rig.layout.environments[ENVIRONMENT][0])


def test_a_whole_rollout_loses_nothing_and_leaves_nobody_behind(rig: Rig) -> None:
    third = Upstream("3")
    new = Route(MODEL, ENVIRONMENT, rig.two.server())
    newer = Route(MODEL, ENVIRONMENT, third.server())
    with load(rig) as calls:
        for weight in (10, 50, 100):
            rig.split(weight)
            calls.more()
        rig.apply(new)
        calls.more()
        rig.apply(new)
        calls.who.clear()
        calls.more()
        after_rollout = set(calls.who)
        # The old release stops only now, and the next one takes its place in the configuration.
        rig.one.stop()
        calls.more()
        rig.apply(newer)
        calls.more(20)
        calls.who.clear()
        calls.more()
    report(f"{calls.answered} requests, slowest {calls.slowest:.3f} s")
    third.stop()
    assert (set(calls.statuses), calls.broken) == ({200}, [])
    assert (after_rollout, set(calls.who)) == ({"2"}, {"3"})


def test_a_rollback_loses_nothing(rig: Rig) -> None:
    with load(rig) as calls:
        rig.split(50)
        calls.more()
        rig.apply(Route(MODEL, ENVIRONMENT, rig.one.server()))
        calls.more(20)
        calls.who.clear()
        calls.more()
    assert (set(calls.statuses), calls.broken, set(calls.who)) == ({200}, [], {"1"})


def test_a_killed_canary_costs_its_callers_little(rig: Rig) -> None:
    port = rig.two.port
    rig.two.stop()
    # With a delay there are always requests in its hands when it dies.
    victim = rig.spawn_upstream("2", port, delay=0.02)
    with load(rig) as calls:
        rig.split(50)
        calls.more()
        victim.kill()
        victim.wait()
        calls.more()
    lost = calls.answered - calls.statuses[200] + len(calls.broken)
    canary = rig.router.sample(MODEL, ENVIRONMENT, "canary", 0)
    report(f"{lost} of {calls.answered} requests lost, slowest {calls.slowest:.3f} s; the canary's sample: {canary}")
    # One that was cut off in the middle of its answer cannot be asked again.
    assert lost <= calls.clients
    assert calls.who["2"] and canary.failed >= 1
    assert not rig.up("canary") and rig.up("stable")


def test_an_old_release_finishes_before_its_place_is_taken(rig: Rig) -> None:
    hasty = HAProxyRouter(rig.layout, patience=0.5)
    third = Upstream("3")
    newest = Route(MODEL, ENVIRONMENT, third.server())
    rig.one.delay = 4.0
    with ThreadPoolExecutor(1) as slow:
        late = slow.submit(rig.call)
        eventually(lambda: rig.admin.sessions(f"{ENVIRONMENT}:{MODEL}:http/blue") == 1)
        rig.apply(Route(MODEL, ENVIRONMENT, rig.two.server()))
        assert rig.who() == "2"
        with pytest.raises(Transient, match="has not finished its last requests"):
            hasty.apply([newest], newest, 1)
        assert rig.who() == "2"
    assert late.result().headers["x-headgate-release"] == "1@0123456789ab"
    rig.apply(newest)
    assert rig.who() == "3"
    third.stop()


def test_a_new_model_needs_a_reload_that_loses_nothing(rig: Rig) -> None:
    with load(rig) as calls:
        rig.split(50)
        calls.more()
        before = rig.router.sample(MODEL, ENVIRONMENT, "canary", 0)
        for name in ("churn", "fraud"):
            rig.apply(Route(name, ENVIRONMENT, rig.two.server()))
            assert rig.call(f"/v2/models/{name}/infer").who == "2"
            calls.more()
        after = rig.router.sample(MODEL, ENVIRONMENT, "canary", 0)
    report(f"{calls.answered} requests, slowest {calls.slowest:.3f} s")
    assert (set(calls.statuses), calls.broken) == ({200}, [])
    assert calls.who["1"] and calls.who["2"]
    assert after.requests > before.requests
    assert (after.failed, before.failed) == (0, 0)


def test_a_restart_from_the_file_changes_nothing(rig: Rig) -> None:
    rig.split(30)
    rig.apply(Route(MODEL, ENVIRONMENT, rig.two.server(), rig.one.server(), 20))
    rig.halt()
    rig.run()
    status = rig.router.status(MODEL, ENVIRONMENT)
    assert (status.weights, status.up["stable"]) == ({"stable": 80, "canary": 20}, True)
    eventually(lambda: rig.up("canary"))
    with load(rig) as calls:
        calls.more(400)
        rig.apply(Route(MODEL, ENVIRONMENT, rig.two.server()))
        calls.more(20)
        calls.who.clear()
        calls.more()
    assert (set(calls.statuses), calls.broken, set(calls.who)) == ({200}, [], {"2"})


def test_a_revived_release_is_followed_to_its_new_address(rig: Rig) -> None:
    rig.one.stop()
    eventually(lambda: not rig.up("stable"))
    assert rig.call().status == 503
    again = Upstream("1")
    rig.apply(Route(MODEL, ENVIRONMENT, again.server()))
    assert rig.who() == "1"
    again.stop()


def test_an_older_list_of_routes_cannot_undo_what_another_worker_did(rig: Rig) -> None:
    stale = Route(MODEL, ENVIRONMENT, rig.one.server())
    rig.apply(Route(MODEL, ENVIRONMENT, rig.two.server()))
    churn = Route("churn", ENVIRONMENT, rig.one.server())
    rig.router.apply([stale, churn], churn, 1)
    rig.router.apply([churn], churn, 1)
    assert rig.who() == "2"
    rig.halt()
    rig.run()
    assert rig.who() == "2"


def test_a_stale_holder_moves_nothing_and_loses_nothing(rig: Rig) -> None:
    rig.fence = 7
    rig.split(30)
    with load(rig) as calls:
        rig.fence = 6
        for _ in range(3):
            with pytest.raises(LostLease):
                rig.split(90)
        calls.more()
    assert rig.router.status(MODEL, ENVIRONMENT).weights == {"stable": 70, "canary": 30}
    assert (set(calls.statuses), calls.broken) == ({200}, [])
    # A restart forgets no token.
    rig.halt()
    rig.router.write_config([Route(MODEL, ENVIRONMENT, rig.one.server())])
    rig.run()
    with pytest.raises(LostLease):
        rig.split(90)
    rig.fence = 7
    rig.split(20)
    assert rig.router.status(MODEL, ENVIRONMENT).weights == {"stable": 80, "canary": 20}


def test_files_are_private_and_hold_no_token(rig: Rig) -> None:
    rig.split(10)
    kept = [path for path in rig.layout.folder.iterdir() if path.is_file() and path != rig.layout.lock]
    assert {path.stat().st_mode & 0o777 for path in kept} == {0o600}
    assert not [path for path in kept if (rig.layout.variant_token or "").encode() in path.read_bytes()]
    assert {entry["model"] for entry in json.loads(rig.layout.record.read_text())} == {MODEL}


def test_a_host_name_is_looked_up(rig: Rig) -> None:
    named = Server("2@0123456789ab", Endpoint("localhost", rig.two.port, 9))
    rig.apply(Route(MODEL, ENVIRONMENT, named))
    assert rig.who() == "2"
