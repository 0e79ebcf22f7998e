"""What operators say of the API's limits, and that mistakes are told at the start."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from app.edge import edge
from app.settings import Settings


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADGATE_HOME", str(tmp_path))


def test_nobodys_word_is_taken_and_any_name_is_ours_without_settings() -> None:
    found = edge(Settings())
    assert (list(found.proxies), found.limits.hosts, found.https) == ([], frozenset(), False)


def test_settings_arrive(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "TRUSTED_PROXIES": "10.1.2.3, 192.168.0.0/16",
        "ALLOWED_HOSTS": "Headgate.example, [::1]",
        "PUBLIC_URL": "https://headgate.example",
        "MAX_BODY_BYTES": "1000",
        "MAX_BODY_SECONDS": "2.5",
        "MAX_JSON_DEPTH": "7",
        "RATE_PER_SECOND": "3",
        "RATE_BURST": "9",
        "RATE_FAILURES": "4",
        "RATE_STREAMS": "2",
    }.items():
        monkeypatch.setenv(f"HEADGATE_{name}", value)
    found = edge(Settings())
    assert list(found.proxies) == ["10.1.2.3/32", "192.168.0.0/16"]
    assert found.limits.hosts == {"headgate.example", "[::1]"}
    assert (found.limits.body_bytes, found.limits.body_seconds, found.limits.depth) == (1000, 2.5, 7)
    shares = found.shares
    assert (shares.per_second, shares.burst, shares.failures, shares.streams) == (3, 9, 4, 2)
    assert found.https


@pytest.mark.parametrize("value", ["*", "proxy.example", "10.0.0.1/8", "10.0.0.0/33", "10.0.0"])
def test_a_proxy_that_is_no_address_is_refused(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("HEADGATE_TRUSTED_PROXIES", value)
    with pytest.raises(ValidationError, match="trusted_proxies"):
        Settings()
