"""The rendered configuration: nothing from outside changes its lines; what can change at run time is no structure."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.adapters.haproxy.admin import parse_servers
from app.adapters.haproxy.config import config, files, releases, structure
from app.adapters.haproxy.layout import Layout
from app.adapters.haproxy.splits import Split, Target, dump, load, merged, split_of
from app.domain.errors import Fault, HeadgateError, Rejected, Transient
from app.ports import Endpoint, Route, Server

TOKEN = "a-secret-of-the-tests"
PORTS = {"production": (8000, 8001), "staging": (8002, 8003)}
LAYOUT = Layout(Path("/run/headgate/router"), PORTS, "127.0.0.1", ("controller", 8080), TOKEN)
OLD = Target("1@0123456789ab", "127.0.0.1", 9001, 9002)
NEW = Target("2@0123456789ab", "::1", 9003, 9004)
FIRST = Split("production", "airbnb-price", OLD)
SHARED = Split("production", "airbnb-price", OLD, NEW, 10)
EMPTY_STATES = "1\n# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_port\n\n"


def server(release: str = "1@0123456789ab", host: str = "127.0.0.1", port: int = 9001) -> Server:
    return Server(release, Endpoint(host, port, 9002))


def test_weights_addresses_and_health_are_no_structure() -> None:
    digests = {structure(LAYOUT, [split]) for split in (FIRST, SHARED, FIRST.emptied(), replace(SHARED, share=100))}
    assert len(digests) == 1
    assert f"description headgate-{digests.pop()}\n" in config(LAYOUT, [SHARED])


@pytest.mark.parametrize(
    "other",
    [
        replace(LAYOUT, variant_token=None),
        replace(LAYOUT, lease=("controller", 8081)),
        replace(LAYOUT, environments={"production": (8000, 8001)}),
        replace(LAYOUT, bind="0.0.0.0"),
    ],
)
def test_what_only_a_reload_can_change_is_structure(other: Layout) -> None:
    assert structure(other, [SHARED]) != structure(LAYOUT, [SHARED])
    assert structure(LAYOUT, [SHARED, Split("staging", "churn")]) != structure(LAYOUT, [SHARED])


def test_the_file_holds_the_truth_of_a_restart() -> None:
    text = config(LAYOUT, [SHARED])
    assert "  server blue 127.0.0.1:9001 track production:airbnb-price:probe/blue weight 100\n" in text
    assert "  server green 192.0.2.1:9 track production:airbnb-price:probe/green weight 0\n" in text
    assert "error-limit 3 on-error mark-down weight 10\n" in text
    assert "  server canary [::1]:9004 track production:airbnb-price:http/canary weight 10 proto h2\n" in text
    assert releases([SHARED])["::1:9003"] == "2@0123456789ab"


def test_a_canary_starts_as_down_unless_it_was_up_a_moment_ago() -> None:
    waiting, awake = files(LAYOUT, [SHARED])[LAYOUT.state], files(LAYOUT, [SHARED], {SHARED.key})[LAYOUT.state]
    state = parse_servers(waiting)["production:airbnb-price:http", "canary"]
    assert (state.ip, state.port, state.weight, state.up) == ("::1", 9003, 10, False)
    assert parse_servers(awake) == parse_servers(EMPTY_STATES) == {}


def test_no_file_tells_the_token() -> None:
    assert all(TOKEN not in text for text in files(LAYOUT, [SHARED]).values())
    assert "X-Headgate-Variant" not in config(replace(LAYOUT, variant_token=None), [SHARED])


@pytest.mark.parametrize("length", [1, 127, 128, 200])
def test_a_grpc_prefix_is_tag_length_and_name(length: int) -> None:
    line = files(LAYOUT, [Split("staging", "m" * length)])[LAYOUT.models_map]
    prefix, name = line.split()
    size = bytes([length]) if length < 128 else bytes([length % 128 + 128, length // 128])
    assert (bytes.fromhex(prefix), name) == (b"\x0a" + size + b"m" * length, "m" * length)


def test_a_long_list_of_models_is_cut() -> None:
    text = config(LAYOUT, [Split("production", f"model-{number:04d}") for number in range(2000)])
    assert "and more" in text
    assert max(len(line) for line in text.splitlines() if "it has" in line) < 9000


hostile = st.text(alphabet=st.sampled_from("ab:/ \n\t'\"\\%{}#;@$.-\u00e9"), max_size=12)


@given(hostile, hostile, hostile)
def test_names_are_refused_or_stand_where_they_belong(model: str, environment: str, release: str) -> None:
    try:
        layout = replace(LAYOUT, environments={environment: (8000, 8001)})
        split = split_of(Route(model, environment, server(release)), layout.environments)
    except HeadgateError as error:
        assert error.remedy
        return
    plain = config(replace(layout, environments={"e": (8000, 8001)}), [Split("e", "m", OLD)])
    assert len(config(layout, [split]).splitlines()) == len(plain.splitlines())


@pytest.mark.parametrize(
    ("route", "error"),
    [
        (Route("a b", "production", None), Rejected),
        (Route("m\n", "production", None), Rejected),
        (Route("m" * 201, "production", None), Rejected),
        (Route("m", "elsewhere", None), Fault),
        (Route("m", "production", None, server(), 101), Fault),
        (Route("m", "production", None, server(), -1), Fault),
        (Route("m", "production", server("1@x\n")), Fault),
        (Route("m", "production", server(port=0)), Fault),
        (Route("m", "production", server(host="release.invalid")), Transient),
    ],
)
def test_wrong_routes_are_refused(route: Route, error: type[HeadgateError]) -> None:
    with pytest.raises(error) as caught:
        split_of(route, PORTS)
    assert caught.value.reason and caught.value.remedy


@pytest.mark.parametrize(
    "wrong",
    [
        {"folder": Path("relative")},
        {"folder": Path("/a folder")},
        {"folder": Path("/" + "x" * 100)},
        {"bind": "127.0.0.1\n"},
        {"lease": ("a host", 80)},
        {"lease": ("host", 0)},
        {"environments": {"a:b": (1, 2)}},
        {"environments": {"a": (1, 1)}},
        {"environments": {"a": (1, 2), "b": (2, 3)}},
        {"environments": {"a": (1, 70000)}},
        {"variant_token": "short"},
        {"variant_token": "a token with spaces"},
    ],
)
def test_wrong_layouts_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(Fault) as caught:
        replace(LAYOUT, **wrong)
    assert caught.value.remedy and "a token with spaces" not in str(caught.value)


def test_addresses_for_clients() -> None:
    assert LAYOUT.address("production") == "http://127.0.0.1:8000"
    assert replace(LAYOUT, bind="0.0.0.0").address("staging", grpc=True) == "127.0.0.1:8003"
    assert replace(LAYOUT, bind="::1").address("staging") == "http://[::1]:8002"
    with pytest.raises(Fault, match="only production, staging"):
        LAYOUT.address("elsewhere")


def test_the_share_of_a_first_release_is_all_or_nothing() -> None:
    shares = [split_of(Route("m", "production", None, server(), weight), PORTS).share for weight in (0, 10, 100)]
    assert shares == [0, 100, 100]
    assert split_of(Route("m", "production", server(), server("2@x"), 10), PORTS).share == 10
    assert split_of(Route("m", "production", server(), None, 10), PORTS).share == 0


def test_only_the_change_alters_what_is_recorded() -> None:
    stale, added = Split("production", "other", OLD), Split("staging", "churn", OLD)
    recorded = [FIRST, Split("production", "other", NEW)]
    assert merged(recorded, [stale, added, FIRST], SHARED) == [SHARED, recorded[1], added]
    assert load(dump([SHARED, added])) == [SHARED, added]
