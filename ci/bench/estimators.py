"""scikit-learn's own estimators through the real conversion: which convert, on which rung, and is any of them wrong."""

import inspect
import shutil
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from sklearn.datasets import make_classification, make_regression
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import train_test_split
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor
from sklearn.utils import all_estimators

from ci.bench import logged
from ci.bench.figures import Group
from workers.sandbox import convert
from workers.sandbox.mlmodel import read_card
from workers.sandbox.native import Native
from workers.sandbox.parity import compare
from workers.sandbox.refusal import Refused
from workers.sandbox.rows import Rows
from workers.sandbox.runner import Runner
from workers.sandbox.tensors import Array, Matrix

Role = Literal["regressor", "classifier"]
ROLES: tuple[Role, ...] = ("regressor", "classifier")
TOLERANCE = 1e-5
COLUMNS = 6
PLAIN = "as it comes"
"""Constructed without arguments and trained on the plain toy data; what does not fit there gets data of its own."""
WITHIN = "with estimators within"


@dataclass(frozen=True)
class Trial:
    """A fitted estimator, rows for the conversion to be judged on, and rows that it never sees."""

    name: str
    role: Role
    given: str
    model: Any
    judged: Array
    unseen: Array

    @property
    def is_alone(self) -> bool:
        """Whether it was made without any arguments."""
        return not self.given.startswith(WITHIN)


@dataclass(frozen=True)
class Outcome:
    """`rung` that was kept, or why there is none; `wrong` rows of the unseen ones where there is; `undecided` rows of
    the kinds that only inform, which differ."""

    trial: Trial
    rung: str | None
    reason: str
    wrong: int
    undecided: int

    @property
    def word(self) -> str:
        return "refused" if self.rung is None else "wrong" if self.wrong else "converted"


def trials() -> Iterator[Trial]:
    """All that can be fitted, in the order of their names."""
    with warnings.catch_warnings():
        # Toy data makes some estimators complain of themselves.
        warnings.simplefilter("ignore")
        for role in ROLES:
            for name, cls in all_estimators(type_filter=role):
                found = next(_fitted(name, cls, role), None)
                if found is not None:
                    yield found


def attempt(trial: Trial, folder: Path) -> Outcome:
    """Convert as production does, and ask about the unseen rows."""
    shutil.rmtree(folder, ignore_errors=True)
    output = folder / "out"
    output.mkdir(parents=True)
    _log(trial, folder / "in")
    rows = {"file": "rows", "label": None, "count": len(trial.judged), "seed": 1}
    request = {"rows": rows, "rtol": TOLERANCE, "atol": TOLERANCE, "max_wrong_rows": 0}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            result = convert.run(request, folder / "in", output)
        except Refused as refused:
            return Outcome(trial, None, refused.reason, 0, 0)
        if result["chosen"] is None:
            return Outcome(trial, None, _reason(result["rungs"]), 0, 0)
        kept = next(rung for rung in result["rungs"] if rung["name"] == result["chosen"])
        undecided = sum(kind["wrong_rows"] for kind in kept["hurting"] if not kind["decides"])
        return Outcome(trial, kept["name"], "", _wrong(trial, folder), undecided)


def _wrong(trial: Trial, folder: Path) -> int:
    card = read_card(folder / "in" / "model")
    signature = card.signature
    assert isinstance(signature, Matrix)
    table = {signature.name: trial.unseen}
    native = Native(card, signature).predict(Rows(table, None, "unseen"))
    outputs = Runner((folder / "out" / "model.onnx").read_bytes()).run(table)
    return compare(native, outputs, TOLERANCE, TOLERANCE).wrong_rows


def _reason(rungs: Sequence[dict[str, Any]]) -> str:
    """What the last rung said, or where the best of them differs."""
    errors = [rung["error"] for rung in rungs if rung["status"] == "error"]
    if len(errors) == len(rungs):
        return str(errors[-1])
    differing = min((rung for rung in rungs if rung["status"] != "error"), key=lambda rung: rung["wrong_rows"])
    if differing["status"] == "differs":
        return f"{differing['wrong_rows']} of {differing['rows']} rows differ on the best rung"
    kinds = [f"{k['kind']}: {k['wrong_rows']} of {k['rows']}" for k in differing["hurting"] if k["wrong_rows"]]
    return f"rows made to hurt differ ({', '.join(kinds)})"


def _log(trial: Trial, folder: Path) -> None:
    """The model as MLflow writes it, and the judged rows."""
    shape = [-1, trial.judged.shape[1]]
    logged.log(folder / "model", trial.model, [{"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": shape}}])
    names = [f"x{at}" for at in range(trial.judged.shape[1])]
    lines = [",".join(names), *(",".join(map(str, row)) for row in trial.judged.tolist())]
    (folder / "rows").write_text("\n".join(lines) + "\n")


Data = tuple[Array, Array]


def _fitted(name: str, cls: type, role: Role) -> Iterator[Trial]:
    arguments = _arguments(cls, role)
    first = PLAIN if set(arguments) <= {"random_state"} else WITHIN
    for title, make in [(first, _plain), ("two targets", _two), ("no negative values", _positive), ("simple", _simple)]:
        x, y = make(role)
        train, rest, answers, _ = train_test_split(x, y, random_state=0, test_size=0.5)
        try:
            model = cls(**arguments).fit(train, answers)
            model.predict(rest)
            if hasattr(model, "predict_proba"):
                model.predict_proba(rest)
        except Exception:  # noqa: BLE001, S112 - what this data does not suit may suit the next
            continue
        given = title if title == first or first == PLAIN else f"{first}, {title}"
        yield Trial(name, role, given, model, rest[: len(rest) // 2], rest[len(rest) // 2 :])


def _arguments(cls: type, role: Role) -> dict[str, Any]:
    known = inspect.signature(cls).parameters
    inner: Callable[[], Any] = Ridge if role == "regressor" else LogisticRegression
    tree = DecisionTreeRegressor if role == "regressor" else DecisionTreeClassifier
    arguments: dict[str, Any] = {"random_state": 0} if "random_state" in known else {}
    needed = {name for name, word in known.items() if word.default is inspect.Parameter.empty}
    if "estimator" in needed or cls.__name__ == "SelfTrainingClassifier":
        arguments["estimator"] = inner()
    if "estimators" in needed:
        arguments["estimators"] = [("line", inner()), ("tree", tree(max_depth=3, random_state=0))]
    return arguments


def _plain(role: Role) -> Data:
    if role == "regressor":
        x, y = make_regression(400, COLUMNS, noise=5, random_state=0)
    else:
        x, y = make_classification(400, COLUMNS, n_informative=4, n_redundant=0, n_classes=3, random_state=0)
    return x.astype(np.float32), y


def _two(role: Role) -> Data:
    x, y = _plain(role)
    return x, np.column_stack([y, y[::-1]]) if role == "regressor" else np.column_stack([y > 0, y > 1]).astype(int)


def _positive(role: Role) -> Data:
    x, y = _plain(role)
    return np.abs(x), np.abs(y)


def _simple(role: Role) -> Data:
    """One column for a regressor; two classes for a classifier, close together."""
    x, y = _positive(role)
    return (x[:, :1], y) if role == "regressor" else (x / 4, (y > 0).astype(int))


def run(folder: Path, each: int) -> Group:
    """Try every estimator, or only `each`-th one."""
    warnings.simplefilter("ignore", ConvergenceWarning)
    outcomes = [attempt(trial, folder / "estimator") for trial in list(trials())[::each]]
    rows = [_row(outcome) for outcome in outcomes]
    alone = [outcome for outcome in outcomes if outcome.trial.is_alone]
    notes = [
        f"Made without arguments: {_counted(alone)}. All that can be fitted: {_counted(outcomes)}.",
        f"Toy data in 32 bits; agreement is |a - b| <= {TOLERANCE:g} + {TOLERANCE:g} |b|, labels being equal. Judged "
        "on one half of the test rows and on rows made to hurt; wrong is what differs on the other half.",
        "Not deciding: rows of extremes and of missing values that the columns do not allow, which differ there.",
    ]
    figures = {outcome.trial.name: {"outcome": outcome.word, "rung": outcome.rung} for outcome in outcomes}
    columns = ["estimator", "given", "outcome", "rung or reason", "wrong", "not deciding, differ"]
    return Group("estimators", "scikit-learn's own estimators", columns, rows, notes, figures)


def _row(outcome: Outcome) -> list[str]:
    said = outcome.rung or outcome.reason.replace("|", "/")
    return [outcome.trial.name, outcome.trial.given, outcome.word, said, str(outcome.wrong), str(outcome.undecided)]


def _counted(outcomes: Sequence[Outcome]) -> str:
    counts = Counter(outcome.word for outcome in outcomes)
    words = ", ".join(f"{counts[word]} {word}" for word in ("converted", "refused", "wrong"))
    return f"{len(outcomes)} estimators, {words}"
