"""What operators say of models' environments, and what `headgate doctor` tells them."""

from pathlib import Path

import pytest

from app import doctor, wiring
from app.domain.environments import ALLOWED
from app.settings import Settings


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADGATE_HOME", str(tmp_path))


def test_without_settings_the_documented_packages_are_allowed() -> None:
    assert wiring.plant(Settings()).environment_packages == frozenset(ALLOWED)


def test_packages_are_named_as_people_write_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADGATE_ENVIRONMENT_PACKAGES", "Scikit_Learn, category.encoders,")
    assert wiring.plant(Settings()).environment_packages == {"scikit-learn", "category-encoders"}


def test_they_can_be_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADGATE_ENVIRONMENTS", "off")
    assert wiring.plant(Settings()).environment_packages is None


def test_the_doctor_says_that_uv_is_there_and_hides_the_index(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HEADGATE_ENVIRONMENT_INDEX", "https://user:hunter2@index.example/simple")
    settings = Settings()
    doctor._print_settings(settings)
    (check,) = [check for check in doctor._checks(settings) if check.name == "environments"]
    assert check.test().startswith("uv ")
    assert "hunter2" not in capsys.readouterr().out
