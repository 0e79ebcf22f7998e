"""Models of every flavor as MLflow saves them: they pass the scan, convert in the real sandbox, and answer as they did
where they were trained. The other libraries are in .flavors, no part of Headgate.
"""

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from app.adapters.bwrap import BwrapSandbox
from app.adapters.bwrap.sandbox import this_interpreter
from app.ports import SandboxJob
from tests import flavor_lab
from tests.flavor_lab import PACKAGES, REQUEST, Made
from workers.sandbox import scan

ROOT = Path(__file__).parents[2]
CONVERTED: Mapping[str, str] = {
    "xgboost, regression with gaps": "trees",
    "xgboost, two classes": "trees",
    "xgboost, three classes": "trees",
    "xgboost, several labels": "trees",
    "xgboost, several values": "trees",
    "xgboost, counts": "trees",
    "xgboost, dropout": "trees",
    "xgboost, forest": "trees",
    "xgboost, stopped early": "trees",
    "xgboost, booster": "trees",
    "lightgbm, regression with gaps": "double",
    "lightgbm, two classes": "double",
    "lightgbm, three texts": "double",
    "lightgbm, pickled": "double",
    "lightgbm, in 32 bits": "float",
    "lightgbm, counts": "double",
    "lightgbm, roots": "double",
    "lightgbm, forest": "double",
    "lightgbm, booster": "double",
    "catboost, regression with gaps": "catboost",
    "catboost, two classes": "catboost",
    "catboost, three texts": "catboost",
    "catboost, plain": "catboost",
    "pytorch, exported": "export",
    "pytorch, exported images": "export",
    "pytorch, pickled columns": "export",
    "pytorch, pickled images": "export",
    "keras, dense": "export",
    "keras, functional": "export",
    "keras, images": "export",
    "sklearn, pipeline of xgboost": "",
    "sklearn, pipeline of lightgbm": "",
    "sklearn, skops of lightgbm": "",
}
"""The models that `tests/flavor_models.py` trains, and the rung that each takes; any for scikit-learn."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Made]:
    """Every model by its name, trained, saved and converted."""
    return flavor_lab.made(tmp_path_factory.mktemp("flavors"))


@pytest.mark.parametrize("name", CONVERTED)
def test_it_is_converted_and_answers_as_it_did_where_it_was_trained(made: Mapping[str, Made], name: str) -> None:
    model = made[name]

    assert model.result.get("chosen"), model.result
    assert model.result["chosen"] == (CONVERTED[name] or model.result["chosen"])
    assert model.result["rungs"][-1]["wrong_rows"] == 0
    assert model.result["rows"] == 400
    assert model.wrong_rows() == 0


def test_what_its_own_library_writes_and_nothing_loads_is_not_taken(made: Mapping[str, Made]) -> None:
    """CatBoost writes several values a row as ONNX that ONNX Runtime refuses."""
    result = made["catboost, several values"].result

    assert result["chosen"] is None
    assert [rung["status"] for rung in result["rungs"]] == ["error"]
    assert "ONNXRuntimeError" in result["rungs"][0]["error"]


@pytest.mark.parametrize("name", CONVERTED)
def test_it_passes_the_scan(made: Mapping[str, Made], name: str, tmp_path: Path) -> None:
    result = scan.run({}, made[name].folder, tmp_path)

    assert (result["findings"], result["errors"]) == ([], [])


def test_inputs_keep_the_names_and_types_of_their_columns(made: Mapping[str, Made]) -> None:
    types = {tensor["name"]: tensor["datatype"] for tensor in made["xgboost, regression with gaps"].result["inputs"]}

    assert types == {
        "a": "FP32",
        "b": "FP64",
        "c": "INT64",
        "d": "BOOL",
        "gap": "FP64",
        # Whole numbers and truth values that may be missing: V2 has no other word for what is not there.
        "count": "FP64",
        "sure": "FP64",
    }
    assert {"count", "sure", "gap"} == set(made["xgboost, regression with gaps"].result["optional"])


@pytest.mark.parametrize(
    "name", ["xgboost, two classes", "lightgbm, three texts", "catboost, plain", "pytorch, exported", "keras, dense"]
)
def test_the_sandbox_converts_it_to_the_same_bytes(made: Mapping[str, Made], name: str, tmp_path: Path) -> None:
    model = made[name]
    here = this_interpreter()
    python = replace(here, site_packages=[PACKAGES, *here.site_packages])
    inputs = {name: model.folder / name for name in ("model", "rows")}
    job = SandboxJob("convert", inputs, REQUEST, tmp_path, timedelta(minutes=10))

    result = BwrapSandbox(ROOT / "workers" / "sandbox", python).run(job)

    assert result["chosen"] == model.result["chosen"]
    assert (tmp_path / "model.onnx").read_bytes() == (model.folder / "out" / "model.onnx").read_bytes()


def test_a_flavor_whose_packages_are_not_there_is_refused_by_name(made: Mapping[str, Made], tmp_path: Path) -> None:
    """Headgate's own environment has none of them."""
    model = made["xgboost, two classes"]
    inputs = {name: model.folder / name for name in ("model", "rows")}

    result = BwrapSandbox(ROOT / "workers" / "sandbox").run(
        SandboxJob("convert", inputs, REQUEST, tmp_path, timedelta(minutes=2))
    )

    assert result["refused"]["code"] == "cannot-load"
    assert "'xgboost'" in result["refused"]["reason"]
    assert "requirements" in result["refused"]["remedy"]
