"""Tests of the webhook's verification, with MLflow's own signing code and payload classes as the oracle."""

import json
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.adapters.mlflow_webhook import MAX_BODY, Delivery, verify
from app.domain.errors import Invalid, Unauthorized
from app.domain.registry import ASK_TAG, Event

NOW = 1_800_000_000.0
SECRET = "a secret of the tests"
DELIVERY = "6f6c4a0e-3d0a-4f6e-9d53-0a8f6a1d2b3c"


def signed(body: bytes, secret: str = SECRET, stamp: str = "1800000000", ident: str = DELIVERY) -> dict[str, str]:
    """The three headers as MLflow's sender makes them."""
    from mlflow.webhooks.delivery import _generate_hmac_signature

    return {
        "X-MLflow-Delivery-Id": ident,
        "X-MLflow-Timestamp": stamp,
        "X-MLflow-Signature": _generate_hmac_signature(secret, ident, stamp, body.decode()),
    }


def event(entity: str = "model_version_alias", action: str = "created", data: Any = None) -> bytes:
    payload = {"name": "price", "alias": "to-production", "version": "3"} if data is None else data
    return json.dumps(
        {"entity": entity, "action": action, "timestamp": "2027-01-15T08:00:00", "data": payload}
    ).encode()


def check(body: bytes, headers: Mapping[str, str], secrets: tuple[str, ...] = (SECRET,)) -> Delivery:
    return verify(secrets, headers, body, NOW, 300)


def test_what_mlflow_signs_is_accepted() -> None:
    body = event()
    said, at = Event("alias:to-production", None, "3"), datetime(2027, 1, 15, 8, tzinfo=UTC)
    expected = Delivery(DELIVERY, 1_800_000_000, "model_version_alias", "created", "price", said, at)
    assert check(body, signed(body)) == expected


@pytest.mark.parametrize(
    ("entity", "action", "data", "said"),
    [
        ("model_version_alias", "deleted", {"alias": "a"}, Event("alias:a", None, None)),
        ("model_version_alias", "created", {"alias": "a", "version": 3}, None),
        ("model_version_alias", "moved", {"alias": "a", "version": "3"}, None),
        ("model_version_tag", "set", {"version": "1", "key": ASK_TAG, "value": "x"}, Event(f"tag:{ASK_TAG}", "1", "x")),
        ("model_version_tag", "deleted", {"version": "1", "key": ASK_TAG}, Event(f"tag:{ASK_TAG}", "1", None)),
        ("model_version_tag", "set", {"version": "1", "key": "headgate.status", "value": "live"}, None),
        ("model_version", "created", {"version": "1", "tags": {ASK_TAG: "x"}}, Event(f"tag:{ASK_TAG}", "1", "x")),
        ("model_version", "created", {"version": "1", "tags": {}}, None),
        ("model_version", "created", {"version": "1", "tags": ["odd"]}, None),
        ("registered_model", "created", {"tags": {ASK_TAG: "x"}}, None),
    ],
)
def test_what_a_delivery_says_of_a_watched_field(entity: str, action: str, data: Any, said: Event | None) -> None:
    body = event(entity, action, {"name": "price", **data})
    assert check(body, signed(body)).event == said


@pytest.mark.parametrize("stamp", [None, 5, "yesterday", "0001-01-01T00:00:00+23:59"])
def test_without_a_time_in_the_body_the_headers_counts(stamp: Any) -> None:
    body = event().replace(b'"2027-01-15T08:00:00"', json.dumps(stamp).encode())
    assert check(body, signed(body)).sent_at == datetime(2027, 1, 15, 8, tzinfo=UTC)


def test_header_names_are_compared_without_case() -> None:
    body = event()
    assert check(body, {name.upper(): value for name, value in signed(body).items()}).model == "price"


def test_the_previous_secret_is_still_good_and_a_third_is_not() -> None:
    body = event()
    headers = signed(body, secret="the one before")
    assert check(body, headers, secrets=(SECRET, "the one before")).model == "price"
    with pytest.raises(Unauthorized):
        check(body, headers, secrets=(SECRET, "another"))


@pytest.mark.parametrize("secrets", [(), ("",)])
def test_nobody_gets_in_where_no_secret_is_set(secrets: tuple[str, ...]) -> None:
    body = event()
    with pytest.raises(Unauthorized):
        check(body, signed(body, secret=""), secrets)


@pytest.mark.parametrize("missing", ["X-MLflow-Delivery-Id", "X-MLflow-Timestamp", "X-MLflow-Signature"])
def test_a_missing_header_is_refused(missing: str) -> None:
    body = event()
    headers = signed(body)
    del headers[missing]
    with pytest.raises(Unauthorized, match=missing.lower()):
        check(body, headers)


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("X-MLflow-Delivery-Id", "not-a-uuid"),
        ("X-MLflow-Delivery-Id", DELIVERY + "\n"),
        ("X-MLflow-Timestamp", "1800000000.0"),
        ("X-MLflow-Timestamp", " 1800000000"),
        ("X-MLflow-Timestamp", "-1800000000"),
        ("X-MLflow-Timestamp", "١٨٠٠٠٠٠٠٠٠"),
        ("X-MLflow-Timestamp", "9" * 5000),
        ("X-MLflow-Signature", "v2," + "A" * 43 + "="),
        ("X-MLflow-Signature", "A" * 43 + "="),
        ("X-MLflow-Signature", "v1,"),
        ("X-MLflow-Signature", "v1,é"),
    ],
)
def test_a_malformed_header_is_refused(header: str, value: str) -> None:
    body = event()
    with pytest.raises(Invalid, match=header.lower()):
        check(body, {**signed(body), header: value})


def test_a_header_that_comes_twice_is_refused() -> None:
    body = event()
    headers = signed(body)
    with pytest.raises(Invalid, match="twice"):
        check(body, {**headers, "x-mlflow-signature": headers["X-MLflow-Signature"]})


@pytest.mark.parametrize(("stamp", "good"), [(-300, True), (300, True), (-301, False), (301, False)])
def test_the_timestamp_must_be_near(stamp: int, good: bool) -> None:
    body = event()
    headers = signed(body, stamp=str(int(NOW) + stamp))
    if good:
        assert check(body, headers).timestamp == int(NOW) + stamp
    else:
        with pytest.raises(Unauthorized, match="clocks"):
            check(body, headers)


@settings(max_examples=300, deadline=None)
@given(place=st.integers(min_value=0, max_value=10**6), bit=st.integers(min_value=0, max_value=7))
def test_a_flipped_bit_anywhere_is_refused(place: int, bit: int) -> None:
    body = event()
    headers = signed(body)
    parts = [*(value.encode() for value in headers.values()), body]
    place %= sum(map(len, parts))
    which = 0
    while place >= len(parts[which]):
        place -= len(parts[which])
        which += 1
    parts[which] = parts[which][:place] + bytes([parts[which][place] ^ (1 << bit)]) + parts[which][place + 1 :]
    changed = dict(zip(headers, (part.decode("latin-1") for part in parts[:3]), strict=True))
    with pytest.raises((Unauthorized, Invalid)):
        verify((SECRET,), changed, parts[3], NOW, 1e12)


@given(body=st.binary(max_size=200))
@settings(deadline=None)
def test_any_bytes_without_our_signature_are_refused(body: bytes) -> None:
    with pytest.raises(Unauthorized):
        check(body, signed(b"{}"))


@given(
    body=st.text(max_size=200).map(str.encode)
    | st.recursive(st.none() | st.text(), st.lists).map(json.dumps).map(str.encode)
)
@settings(deadline=None)
def test_a_signed_body_that_is_no_event_is_invalid(body: bytes) -> None:
    with pytest.raises(Invalid):
        check(body, signed(body))


@pytest.mark.parametrize(
    "body",
    [
        event(entity="MODEL"),
        event(action=""),
        event(data=[]),
        event(data={"version": "1"}),
        event(data={"name": ""}),
        event(data={"name": 7}),
        event(data={"name": "x" * 1025}),
        event(data={"name": "\ud800"}),
        event(data={"name": "a\0"}),
        b"[" * 100_000,
        b'{"a":' + b"9" * 5000 + b"}",
        b" " * (MAX_BODY + 1),
    ],
    ids=[
        "entity",
        "action",
        "data",
        "no name",
        "empty name",
        "number",
        "long name",
        "surrogate",
        "nul",
        "depth",
        "digits",
        "size",
    ],
)
def test_a_signed_body_is_still_checked(body: bytes) -> None:
    with pytest.raises(Invalid):
        check(body, signed(body))


def test_every_event_that_mlflow_knows_is_read() -> None:
    from mlflow.webhooks.types import EVENT_TO_PAYLOAD_CLASS

    models: dict[str, str | None] = {}
    for (entity, action), payload_class in EVENT_TO_PAYLOAD_CLASS.items():
        body = event(entity.value, action.value, payload_class.example())  # type: ignore[union-attr]  # MLflow types them as bare TypedDicts
        models[f"{entity.value}.{action.value}"] = check(body, signed(body)).model
    ours = {name for name, model in models.items() if model == "example_model"}
    assert ours == {
        "registered_model.created",
        "model_version.created",
        "model_version_tag.set",
        "model_version_tag.deleted",
        "model_version_alias.created",
        "model_version_alias.deleted",
    }
    assert {model for name, model in models.items() if name not in ours} == {None}


def test_the_module_needs_neither_httpx_nor_mlflow() -> None:
    script = "import sys, app.adapters.mlflow_webhook; print(sorted({'httpx', 'mlflow'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
