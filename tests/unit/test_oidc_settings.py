"""The settings of an issuer, and what `headgate doctor` finds at a real one."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from app import wiring
from app.settings import Settings
from tests.issuer import AUDIENCE, issuing

ROLES = {"ml-reviewers": "reviewer"}


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"oidc_issuer": "http://login.example.org"}, "oidc_issuer"),
        ({"oidc_issuer": "http://127.0.0.1.example.org"}, "oidc_issuer"),
        ({"oidc_issuer": "login.example.org"}, "oidc_issuer"),
        ({"oidc_issuer": "https://"}, "oidc_issuer"),
        ({"oidc_audience": ""}, "oidc_audience"),
        ({"oidc_roles": {}}, "oidc_roles"),
        ({"oidc_roles": {"ml": "king"}}, "oidc_roles"),
    ],
)
def test_half_an_issuer_is_told_by_field(changes: dict[str, object], field: str) -> None:
    whole = {"oidc_issuer": "https://login.example.org", "oidc_audience": "headgate", "oidc_roles": ROLES}
    assert wiring.identities(Settings.model_validate(whole)) is not None
    with pytest.raises(ValidationError) as refused:
        Settings.model_validate({**whole, **changes})
    assert refused.value.errors()[0]["loc"][0] == field


def test_without_an_issuer_only_our_own_tokens_count() -> None:
    assert wiring.identities(Settings()) is None


def test_the_environment_says_which_values_give_which_role(monkeypatch: pytest.MonkeyPatch) -> None:
    with issuing() as issuer:
        monkeypatch.setenv("HEADGATE_OIDC_ISSUER", issuer.url)
        monkeypatch.setenv("HEADGATE_OIDC_AUDIENCE", AUDIENCE)
        monkeypatch.setenv("HEADGATE_OIDC_ROLES", '{"robots": "requester", "ml-reviewers": "reviewer"}')
        monkeypatch.setenv("HEADGATE_OIDC_MACHINES", "robots, bots")
        identities = wiring.identities(Settings())
        assert identities is not None
        assert (identities.verify(issuer.token()).role, identities.verify(issuer.token()).machine) == (
            "reviewer",
            False,
        )
        found = identities.verify(issuer.token(groups=["ml-reviewers", "robots"]))
        assert (found.role, found.machine) == ("requester", True)


def test_doctor_asks_the_issuer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with issuing() as issuer:
        settings = {
            "HEADGATE_OIDC_ISSUER": issuer.url,
            "HEADGATE_OIDC_AUDIENCE": AUDIENCE,
            "HEADGATE_OIDC_ROLES": json.dumps(ROLES),
        }
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        look = "from app import doctor; from app.settings import Settings\n"
        look += "[doctor._run(c) for c in doctor._checks(Settings()) if c.name == 'issuer of identities']"

        def said() -> str:
            root = Path(wiring.__file__).parents[1]
            return subprocess.run([sys.executable, "-c", look], cwd=root, capture_output=True, text=True).stdout

        assert said() == f"ok    issuer of identities: {issuer.url}, 1 keys (RS256)\n"
        issuer.away = True
        assert said().startswith(f"FAIL  issuer of identities: The issuer {issuer.url} cannot be asked")
