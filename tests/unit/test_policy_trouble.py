"""Policies that would do harm if they were taken: each is refused in words, and never with a bare defect."""

from datetime import timedelta
from pathlib import Path

import pytest

from app.domain.digests import digest_json
from app.domain.errors import Invalid
from app.policy_files import PolicyFolder, freeze, parse
from app.policy_models import parse_duration

POLICY = """\
model: m
environments:
  production:
    triggers: {alias: to-production, stage: Production}
    gates:
      - {kind: metric, name: rmse, max: 0.55}
    approvals: {expires: 72h}
    rollout: {soak: 30s}
  staging: {}
"""


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        # What JSON cannot carry cannot be hashed, so no promotion could ever be opened under it.
        ("max: 0.55", "max: .nan", ["line 6", "finite"]),
        ("max: 0.55", "max: .inf", ["line 6", "finite"]),
        ("soak: 30s", "soak: 99999999999999999999d", ["line 8", "100 years"]),
        ("expires: 72h", "expires: 999999999d", ["line 7", "100 years"]),
        ("soak: 30s", "soak: 2026-13-45", ["YAML"]),
        ("{soak: 30s}", "[" * 3000, ["YAML"]),
        # Headgate's own answer must not be somebody's question.
        ("alias: to-production", "alias: production", ["line 2", "'production'", "Headgate"]),
        ("alias: to-production", "alias: staging", ["line 2", "'staging'", "Headgate"]),
        # One question cannot be meant for two environments.
        ("alias: to-production", "alias: to-staging", ["line 2", "to-staging"]),
        ("staging: {}", "staging: {triggers: {stage: Production}}", ["line 2", "Production"]),
        # MLflow would refuse these as aliases.
        ("staging: {}", "eu.west: {}", ["line 9", "pattern"]),
        ("staging: {}", "latest: {}", ["line 2", "latest"]),
        ("staging: {}", "v2: {}", ["line 2", "v2"]),
        ("alias: to-production", "alias: v2", ["line 2", "v2"]),
        ("alias: to-production", "alias: to.production", ["line 4", "pattern"]),
    ],
)
def test_it_is_refused_in_words(old: str, new: str, words: list[str]) -> None:
    with pytest.raises(Invalid) as caught:
        parse(POLICY.replace(old, new, 1), "m.yaml")
    assert all(word in str(caught.value) for word in ["m.yaml", *words]), str(caught.value)


def test_the_policy_around_the_mistakes_is_well_formed() -> None:
    for environment in parse(POLICY).environments.values():
        assert digest_json(freeze(environment))
    assert parse_duration("36500d") == timedelta(days=36500)


def test_a_file_that_grows_when_it_is_read_is_refused() -> None:
    layers = "".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]\n" for n in range(1, 12))
    for text in (f"l0: &l0 [1, 2]\n{layers}{POLICY}", f"x: &x [*x]\n{POLICY}"):
        with pytest.raises(Invalid, match="more than 20000 values"):
            parse(text)


@pytest.mark.parametrize("content", [b"\xff\xfe\x00model", b"model: m\x00"])
def test_a_file_that_is_no_text_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.yaml").write_bytes(content)
    with pytest.raises(Invalid, match=r"m\.yaml"):
        PolicyFolder(tmp_path).policy("m")


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    class Gone(type(tmp_path)):  # type: ignore[misc]  # the platform's own class of paths
        """A file that is deleted between the look and the reading."""

        def is_file(self) -> bool:
            return True

    with pytest.raises(Invalid, match="cannot be read"):
        PolicyFolder(Gone(tmp_path)).policy("m")
