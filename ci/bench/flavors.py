"""Models of the other libraries: how many convert, and whether any answers otherwise than where it was trained."""

from collections import defaultdict
from pathlib import Path
from typing import Any

from ci.bench.figures import Group
from tests import flavor_lab
from tests.flavor_lab import ATOL, ROWS, RTOL


def run(folder: Path) -> Group:
    """Every model that the tests train, by flavor."""
    folder.mkdir()
    found = defaultdict[str, list[flavor_lab.Made]](list)
    for name, model in flavor_lab.made(folder).items():
        found[name.partition(",")[0]].append(model)
    rows, figures = [], dict[str, Any]()
    for flavor, models in sorted(found.items()):
        converted = [model for model in models if model.result.get("chosen")]
        wrong = sum(model.wrong_rows() for model in converted)
        hurt = sum(_hurt(model, "rows") for model in converted)
        told = [f"{count:,}" for count in (len(models), len(converted), len(models) - len(converted), wrong, hurt)]
        rows.append([flavor, *told, f"{sum(_hurt(model, 'wrong_rows') for model in converted):,}"])
        figures[flavor] = {"tried": len(models), "converted": len(converted), "wrong_rows": wrong}
    columns = ["flavor", "models", "converted", "refused", "wrong rows", "rows made to hurt", "of them wrong"]
    notes = [
        f"{ROWS} rows a model, compared with what it said before it was saved: |a - b| <= {ATOL:g} + {RTOL:g} |b|, "
        "labels being equal. Rows made to hurt are those of the kinds that decide.",
        "`sklearn` are pipelines of scikit-learn whose last step is a booster of another library.",
    ]
    return Group("flavors", "Other libraries", columns, rows, notes, figures)


def _hurt(model: flavor_lab.Made, what: str) -> int:
    """Over the kinds that decide, of the rung that was kept."""
    kept = next(rung for rung in model.result["rungs"] if rung["name"] == model.result["chosen"])
    return sum(int(kind[what]) for kind in kept["hurting"] if kind["decides"])
