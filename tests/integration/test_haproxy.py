"""The router on a real HAProxy: who answers, what is denied, and that nothing is lost while traffic moves."""

import http.client
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.domain.errors import Fault, Transient
from app.ports import Route, RouteStatus
from tests.haproxy_support import ENVIRONMENT, INFER, MODEL, TOKEN, Load, Rig, ask, eventually, report


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path)
    yield rig
    rig.stop()


def stable_only(rig: Rig) -> Route:
    return Route(MODEL, ENVIRONMENT, rig.one.server())


def keyed(rig: Rig, count: int) -> dict[str, str]:
    """Who answers each of so many keys."""
    connection = http.client.HTTPConnection("127.0.0.1", rig.layout.environments[ENVIRONMENT][0])
    keys = [f"user-{number}" for number in range(count)]
    answers = {key: ask(connection, INFER, "POST", {"X-Headgate-Key": key}).who for key in keys}
    connection.close()
    return answers


def test_a_route_from_the_file_serves_and_says_which_release_answered(rig: Rig) -> None:
    rig.start(stable_only(rig))
    answer = rig.call(X_Headgate_Release="9@ffffffffffff")
    assert (answer.status, answer.headers["x-headgate-release"]) == (200, "1@0123456789ab")
    assert not {"server", "via"} & answer.headers.keys()
    assert not [name for name in answer.json["headers"] if name.lower().startswith("x-headgate")]
    assert rig.router.status(MODEL, ENVIRONMENT) == RouteStatus({"stable": 100}, {"stable": True})
    assert rig.call("/v2/health/ready", "GET").status == 200
    assert rig.router.address(ENVIRONMENT).startswith("http://127.0.0.1:")


def test_keys_split_by_weight_and_only_ever_move_to_the_canary(rig: Rig) -> None:
    rig.start(stable_only(rig))
    moved: set[str] = set()
    for weight in (1, 10, 50, 100):
        rig.split(weight)
        assert rig.router.status(MODEL, ENVIRONMENT).weights == {"stable": 100 - weight, "canary": weight}
        answers = keyed(rig, 2500)
        on_canary = {key for key, who in answers.items() if who == "2"}
        report(f"weight {weight} %: {len(on_canary) / len(answers):.2%} of the keys")
        assert moved <= on_canary
        # Four standard deviations of a fair split; the keys are fixed, so this cannot flicker.
        assert abs(len(on_canary) - 25 * weight) <= 4 * (25 * weight * (1 - weight / 100)) ** 0.5
        moved = on_canary


def test_a_request_without_a_key_falls_anywhere(rig: Rig) -> None:
    rig.start(stable_only(rig))
    rig.split(50)
    assert {rig.who() for _ in range(60)} == {"1", "2"}
    assert len({rig.who(X_Headgate_Key="somebody") for _ in range(20)}) == 1


def test_a_variant_is_given_to_those_who_hold_the_token(rig: Rig) -> None:
    rig.start(stable_only(rig))
    rig.split(0)
    assert rig.who(X_Headgate_Variant="canary", X_Headgate_Variant_Token=TOKEN) == "2"
    assert rig.who(X_Headgate_Variant="canary", X_Headgate_Variant_Token="a-token-of-others") == "1"
    assert rig.who(X_Headgate_Variant="canary") == "1"
    rig.split(100)
    assert rig.who(X_Headgate_Variant="stable", X_Headgate_Variant_Token=TOKEN) == "1"
    assert rig.who(X_Headgate_Variant="stable") == "2"


@pytest.mark.parametrize("weight", [10, 100])
def test_without_its_lease_the_canary_gets_nothing_and_stable_all(rig: Rig, weight: int) -> None:
    rig.start(stable_only(rig))
    rig.split(weight)
    rig.lease.ready = False
    took = eventually(lambda: not rig.up("canary"))
    report(f"the lease was refused: canary down after {took:.2f} s")
    assert set(keyed(rig, 50).values()) == {"1"}
    assert rig.router.status(MODEL, ENVIRONMENT) == RouteStatus(
        {"stable": 100 - weight, "canary": weight}, {"stable": True, "canary": False}
    )
    assert rig.who(X_Headgate_Variant="canary", X_Headgate_Variant_Token=TOKEN) == "1"
    rig.lease.ready = True
    eventually(lambda: rig.up("canary"))
    port = rig.lease.port
    rig.lease.stop()
    took = eventually(lambda: not rig.up("canary"))
    report(f"the controller died: canary down after {took:.2f} s")
    assert rig.up("stable") and set(keyed(rig, 50).values()) == {"1"}
    rig.lease = type(rig.lease)("lease", port)
    eventually(lambda: rig.up("canary"))


def test_a_controller_that_hangs_is_a_dead_one(rig: Rig) -> None:
    rig.start(stable_only(rig))
    rig.lease.stop()
    controller = rig.spawn_upstream("lease", rig.lease.port)
    rig.split(50)
    eventually(lambda: rig.up("canary"))
    controller.send_signal(signal.SIGSTOP)
    took = eventually(lambda: not rig.up("canary"))
    report(f"the controller hung: canary down after {took:.2f} s")
    assert rig.up("stable") and set(keyed(rig, 50).values()) == {"1"}


def test_a_canary_gets_no_request_before_the_lease_was_asked(rig: Rig) -> None:
    rig.start(stable_only(rig))
    rig.lease.ready = False
    with Load(rig.layout.environments[ENVIRONMENT][0], clients=2) as load:
        rig.split(100)
        load.more()
        rig.halt()
        rig.run()
        load.more()
    assert set(load.who) == {"1"}


def test_a_first_release_takes_all_or_nothing(rig: Rig) -> None:
    rig.start()
    assert rig.call().status == 404
    assert rig.router.status(MODEL, ENVIRONMENT) == RouteStatus()
    rig.apply(Route(MODEL, ENVIRONMENT, None))
    refused = rig.call()
    assert refused.status == 503 and MODEL in refused.json["error"]
    assert rig.router.status(MODEL, ENVIRONMENT) == RouteStatus()
    rig.apply(Route(MODEL, ENVIRONMENT, None, rig.two.server(), 10))
    assert rig.router.status(MODEL, ENVIRONMENT) == RouteStatus({"canary": 100}, {"canary": True})
    assert set(keyed(rig, 50).values()) == {"2"}
    rig.apply(Route(MODEL, ENVIRONMENT, None, rig.two.server(), 0))
    assert rig.call().status == 503
    rig.apply(Route(MODEL, ENVIRONMENT, None))
    assert rig.call().status == 503


def test_what_triton_offers_besides_is_out_of_reach(rig: Rig) -> None:
    rig.start(stable_only(rig))
    for method, path in (
        ("POST", "/v2/repository/index"),
        ("POST", f"/v2/repository/models/{MODEL}/unload"),
        ("GET", "/v2/systemsharedmemory/status"),
        ("POST", "/v2/cudasharedmemory/region/x/register"),
        ("GET", "/v2/trace/setting"),
        ("POST", f"/v2/models/{MODEL}/trace/setting"),
        ("POST", "/v2/logging"),
        ("GET", f"/v2/models/{MODEL}/stats"),
        ("GET", "/metrics"),
        ("POST", f"/v2/models/{MODEL}/generate"),
        ("POST", f"/v2/models/{MODEL}/config"),
        ("GET", INFER),
        ("GET", f"/v2/models/{MODEL}/../../repository/index"),
        ("GET", f"/v2/models/{MODEL}%2f..%2f..%2flogging"),
        ("GET", f"//v2/models/{MODEL}"),
    ):
        answer = rig.call(path, method)
        assert (answer.status, "router serves" in answer.json["error"]) == (403, True), path
    for path in (f"/v2/models/{MODEL}", f"/v2/models/{MODEL}/config", f"/v2/models/{MODEL}/versions/1/ready"):
        assert rig.call(path, "GET").status == 200


def test_an_unknown_model_hears_which_there_are(tmp_path: Path) -> None:
    rig = Rig(tmp_path, ("production", "staging"))
    try:
        rig.start(stable_only(rig), Route("churn", "staging", rig.two.server()))
        for model in ("churn", "airbnb-pric", f"{MODEL}:http", "unknown-http", "..", "a%20b"):
            answer = rig.call(f"/v2/models/{model}/infer")
            assert answer.status == (403 if {"%", ":"} & set(model) else 404), model
        assert MODEL in rig.call("/v2/models/churn/infer").json["error"]
        assert "churn" not in rig.call("/v2/models/churn/infer").json["error"]
        assert rig.call("/v2/models/churn/infer", environment="staging").who == "2"
    finally:
        rig.stop()


def test_bodies_are_limited_even_without_a_length(tmp_path: Path) -> None:
    rig = Rig(tmp_path, max_body=100_000)
    try:
        rig.start(stable_only(rig))
        connection = http.client.HTTPConnection("127.0.0.1", rig.layout.environments[ENVIRONMENT][0])
        for size, chunked, status in ((99_000, False, 200), (101_000, False, 413), (64_000, True, 411)):
            body = iter([b"x" * size]) if chunked else b"x" * size
            connection.request("POST", INFER, body, encode_chunked=chunked)
            answer = connection.getresponse()
            assert (answer.status, bool(answer.read())) == (status, True)
            connection.close()
    finally:
        rig.stop()


def test_a_router_that_is_away_is_transient(rig: Rig) -> None:
    for call in (lambda: rig.apply(stable_only(rig)), lambda: rig.up("stable")):
        with pytest.raises(Transient, match="does not answer"):
            call()
    with pytest.raises(Transient):
        rig.router.sample(MODEL, ENVIRONMENT, "canary", 0)


def test_samples_say_what_the_clients_saw(rig: Rig) -> None:
    rig.start(stable_only(rig))
    rig.split(50)
    start = time.time()
    rig.two.delay = 0.05
    who = keyed(rig, 100)
    rig.two.status, rig.two.delay = 500, 0.0
    failed = [rig.call(X_Headgate_Key=key).status for key in who]
    rig.two.status = 400
    failed += [rig.call(X_Headgate_Key=key).status for key in who]
    rig.two.status = 404
    rig.call(X_Headgate_Key=next(key for key, by in who.items() if by == "2"))
    rig.call(f"/v2/models/{MODEL}/ready", "GET")
    rig.call("/v2/models/other/infer")
    canary = rig.router.sample(MODEL, ENVIRONMENT, "canary", start)
    stable = rig.router.sample(MODEL, ENVIRONMENT, "stable", start)
    to_canary = list(who.values()).count("2")
    assert (canary.requests, canary.failed) == (3 * to_canary + 1, 2 * to_canary)
    assert (canary.failed, stable.requests, stable.failed) == (
        len(failed) - failed.count(200),
        3 * (100 - to_canary),
        0,
    )
    assert canary.p99_ms is not None and canary.p99_ms >= 50
    assert stable.p99_ms is not None
    assert rig.router.sample(MODEL, ENVIRONMENT, "canary", time.time() + 1).requests == 0
    assert rig.router.sample("other", ENVIRONMENT, "canary", start).requests == 0


def test_a_configuration_that_haproxy_refuses_leaves_the_old_one(rig: Rig) -> None:
    rig.start(stable_only(rig))
    # The port check of the layout cannot know that a name does not resolve.
    broken = type(rig.layout)(rig.layout.folder, rig.layout.environments, "127.0.0.1", ("lease.invalid", 1))
    with pytest.raises(Fault, match=r"refuses its configuration.*lease\.invalid"):
        type(rig.router)(broken).apply([], Route("churn", ENVIRONMENT, rig.two.server()), 1)
    assert rig.call().status == 200
    rig.halt()
    rig.run()
    assert rig.call().status == 200


def test_an_unhealthy_new_stable_changes_nothing(rig: Rig) -> None:
    rig.start(stable_only(rig))
    rig.two.ready = False
    hasty = type(rig.router)(rig.layout, patience=1.0)
    new = Route(MODEL, ENVIRONMENT, rig.two.server())
    with pytest.raises(Transient, match="not ready behind the router"):
        hasty.apply([new], new, 1)
    assert rig.who() == "1"
    rig.two.ready = True
    rig.apply(new)
    assert rig.who() == "2"
