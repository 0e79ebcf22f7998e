"""Trains small models of each flavor and saves them as MLflow does: run with the packages of .flavors on the path.

`python flavor_models.py FOLDER FLAVOR...` writes FOLDER/NAME/ with `model`, `rows` (CSV) and `expected.json`: what the
trained model itself says of those rows, before it was saved. The names begin with the flavor.
"""

import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ["KERAS_BACKEND"] = "torch"
import numpy as np
import pandas as pd

ROWS = 400
PLAIN = ["a", "b", "c", "d"]


@dataclass
class Trained:
    """A model, what it is asked, what it says (one array an output), and how it is saved."""

    model: Any
    given: Any
    answers: list[Any]
    save: Callable[..., None]
    options: Mapping[str, Any]


def frame() -> pd.DataFrame:
    """Columns of several types; `gap` and `count` lack values."""
    chance = np.random.default_rng(11)
    table = pd.DataFrame(
        {
            "a": chance.normal(size=ROWS).astype("float32"),
            "b": chance.normal(1000, 1, ROWS).round(6),
            "c": chance.integers(0, 50, ROWS),
            "d": chance.random(ROWS) > 0.5,
            "gap": np.where(chance.random(ROWS) > 0.8, np.nan, chance.normal(size=ROWS)),
            "count": pd.array(chance.integers(0, 9, ROWS), dtype="Int64"),
            "sure": pd.array(chance.random(ROWS) > 0.3, dtype="boolean"),
            "city": chance.choice(["Ulm", "Bonn", "Köln"], ROWS),
        }
    )
    table.loc[chance.random(ROWS) > 0.9, "count"] = pd.NA
    table.loc[chance.random(ROWS) > 0.9, "sure"] = pd.NA
    return table


TABLE = frame()
X, GAPS = TABLE[PLAIN], TABLE[[*PLAIN, "gap", "count", "sure"]]
VALUE = (TABLE.a + TABLE.b - 1000 + TABLE.c / 10 + TABLE.d + TABLE.gap.fillna(2)).to_numpy()
BINARY = (np.median(VALUE) < VALUE).astype(int)
THREE = np.digitize(VALUE, np.quantile(VALUE, [0.3, 0.7]))
TEXT = np.array(["low", "middle", "high"])[THREE]
TWO = np.column_stack([VALUE, -VALUE * TABLE.a])
MATRIX = X.to_numpy(dtype="float32") - np.array([0, 1000, 25, 0], dtype="float32")


def _asked(model: Any, given: Any, save: Callable[..., None], **options: Any) -> Trained:
    answers = [model.predict(given)]
    if hasattr(model, "predict_proba"):
        answers.append(model.predict_proba(given))
    return Trained(model, given, answers, save, options)


def xgboost() -> Iterator[tuple[str, Trained]]:
    import mlflow.xgboost
    import xgboost as xgb

    save, few = mlflow.xgboost.save_model, {"n_estimators": 12, "max_depth": 4}
    yield "regression with gaps", _asked(xgb.XGBRegressor(**few).fit(GAPS, VALUE), GAPS, save)
    yield "two classes", _asked(xgb.XGBClassifier(**few).fit(X, BINARY), X, save, model_format="json")
    yield "three classes", _asked(xgb.XGBClassifier(**few).fit(X, THREE), X, save)
    yield "several labels", _asked(xgb.XGBClassifier(**few).fit(X, np.column_stack([BINARY, THREE > 1])), X, save)
    yield "several values", _asked(xgb.XGBRegressor(**few).fit(X, TWO), X, save)
    yield "counts", _asked(xgb.XGBRegressor(objective="count:poisson", **few).fit(X, THREE), X, save)
    yield "dropout", _asked(xgb.XGBRegressor(booster="dart", rate_drop=0.3, **few).fit(X, VALUE), X, save)
    yield "forest", _asked(xgb.XGBRFRegressor(n_estimators=8, max_depth=5).fit(X, VALUE), X, save)
    stopped = xgb.XGBClassifier(n_estimators=300, learning_rate=0.9, early_stopping_rounds=3)
    stopped.fit(X[:200], THREE[:200], eval_set=[(X[200:], THREE[200:])], verbose=False)
    yield "stopped early", _asked(stopped, X, save)
    booster = xgb.train({"objective": "binary:logistic"}, xgb.DMatrix(X, BINARY), 8)
    yield "booster", Trained(booster, X, [booster.predict(xgb.DMatrix(X))], save, {})


def lightgbm() -> Iterator[tuple[str, Trained]]:
    import lightgbm as lgb
    import mlflow.lightgbm

    save, few = mlflow.lightgbm.save_model, {"n_estimators": 12, "verbose": -1}
    yield "regression with gaps", _asked(lgb.LGBMRegressor(**few).fit(GAPS, VALUE), GAPS, save)
    yield "two classes", _asked(lgb.LGBMClassifier(**few).fit(X, BINARY), X, save)
    yield "three texts", _asked(lgb.LGBMClassifier(**few).fit(X, TEXT), X, save)
    yield "pickled", _asked(lgb.LGBMRegressor(**few).fit(X, VALUE), X, save, serialization_format="cloudpickle")
    yield "in 32 bits", _asked(lgb.LGBMRegressor(**few).fit(X[["a", "d"]], VALUE), X[["a", "d"]], save)
    yield "counts", _asked(lgb.LGBMRegressor(objective="poisson", **few).fit(X, THREE), X, save)
    yield "roots", _asked(lgb.LGBMRegressor(reg_sqrt=True, **few).fit(X, VALUE), X, save)
    forest = lgb.LGBMRegressor(boosting_type="rf", bagging_freq=1, bagging_fraction=0.5, **few).fit(X, VALUE)
    yield "forest", _asked(forest, X, save)
    yield "booster", _asked(lgb.train({"verbose": -1}, lgb.Dataset(X, VALUE), 8), X, save)


def catboost() -> Iterator[tuple[str, Trained]]:
    import catboost as cb
    import mlflow.catboost

    save, few = mlflow.catboost.save_model, {"iterations": 12, "verbose": 0, "allow_writing_files": False}
    some = TABLE[["a", "b", "c", "gap"]]
    yield "regression with gaps", _asked(cb.CatBoostRegressor(**few).fit(some, VALUE), some, save)
    yield "two classes", _asked(cb.CatBoostClassifier(**few).fit(X, BINARY), X, save)
    yield "three texts", _asked(cb.CatBoostClassifier(**few).fit(X, TEXT), X, save)
    yield "several values", _asked(cb.CatBoostRegressor(loss_function="MultiRMSE", **few).fit(X, TWO), X, save)
    yield "plain", _asked(cb.CatBoost(few).fit(X, VALUE), X, save)


def pytorch() -> Iterator[tuple[str, Trained]]:
    import mlflow.pytorch
    import torch
    from torch import nn

    class Residual(nn.Module):  # type: ignore[misc]  # nobody checks types with PyTorch installed
        """Of a class of its own: only its export can be taken."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(4, 4)

        def forward(self, x: Any) -> Any:
            return torch.softmax(x + torch.tanh(self.inner(x)), dim=1)

    torch.manual_seed(0)
    images = np.random.default_rng(1).normal(size=(ROWS, 1, 6, 6)).astype("float32")
    dense = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 1)).eval()
    seeing = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(12, 2)).eval()

    def told(module: Any, given: Any, **options: Any) -> Trained:
        with torch.no_grad():
            matrix = given.to_numpy(dtype="float32") if isinstance(given, pd.DataFrame) else given
            answer = module(torch.from_numpy(matrix)).numpy()
        return Trained(module, given, [answer], mlflow.pytorch.save_model, options)

    yield "exported", told(Residual().eval(), MATRIX, input_example=MATRIX[:3])
    yield "exported images", told(seeing, images, input_example=images[:3])
    yield "pickled columns", told(dense, X, serialization_format="pickle")
    yield "pickled images", told(seeing, images, serialization_format="pickle")


def keras() -> Iterator[tuple[str, Trained]]:
    import keras
    import mlflow.keras

    def told(model: Any, given: Any) -> Trained:
        matrix = given.to_numpy(dtype="float32") if isinstance(given, pd.DataFrame) else given
        return Trained(model, given, [model.predict(matrix, verbose=0)], mlflow.keras.save_model, {})

    layers = keras.layers
    images = np.random.default_rng(2).normal(size=(ROWS, 6, 6, 1)).astype("float32")
    dense = keras.Sequential([layers.Input((4,)), layers.Dense(8, activation="relu"), layers.Dense(1)])
    dense.compile(loss="mse", optimizer="adam")
    dense.fit(MATRIX, VALUE.astype("float32"), epochs=1, verbose=0)
    yield "dense", told(dense, MATRIX)
    entrance = keras.Input((4,))
    joined = layers.Concatenate()([entrance, layers.Dense(3, activation="tanh")(entrance)])
    yield "functional", told(keras.Model(entrance, layers.Dense(3, activation="softmax")(joined)), MATRIX)
    seeing = [layers.Input((6, 6, 1)), layers.Conv2D(3, 3, activation="relu"), layers.Flatten(), layers.Dense(2)]
    yield "images", told(keras.Sequential(seeing), images)


def sklearn() -> Iterator[tuple[str, Trained]]:
    import lightgbm as lgb
    import mlflow.sklearn
    import xgboost as xgb
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    columns = ColumnTransformer(
        [
            ("text", OneHotEncoder(handle_unknown="ignore", sparse_output=False), ["city"]),
            ("numbers", StandardScaler(), ["a", "b"]),
            ("gaps", SimpleImputer(), ["gap", "count"]),
        ]
    )
    given = TABLE[["city", "a", "b", "gap", "count"]].astype({"b": "float32"})
    save, pickled = mlflow.sklearn.save_model, {"serialization_format": "cloudpickle"}
    few = {"n_estimators": 8}
    yield (
        "pipeline of xgboost",
        _asked(make_pipeline(columns, xgb.XGBClassifier(**few)).fit(given, THREE), given, save, **pickled),
    )
    yield (
        "pipeline of lightgbm",
        _asked(make_pipeline(StandardScaler(), lgb.LGBMRegressor(verbose=-1, **few)).fit(X, VALUE), X, save, **pickled),
    )
    trusted = ["lightgbm.basic.Booster", "lightgbm.sklearn.LGBMClassifier", "collections.OrderedDict"]
    yield (
        "skops of lightgbm",
        _asked(
            make_pipeline(StandardScaler(), lgb.LGBMClassifier(verbose=-1, **few)).fit(X, TEXT),
            X,
            save,
            skops_trusted_types=trusted,
        ),
    )


def _write(folder: Path, trained: Trained) -> None:
    from mlflow.models import infer_signature

    folder.mkdir()
    signature = infer_signature(trained.given, np.asarray(trained.answers[0]))
    trained.save(
        trained.model, str(folder / "model"), signature=signature, pip_requirements=["numpy"], **dict(trained.options)
    )
    given = trained.given
    if not isinstance(given, pd.DataFrame):
        given = pd.DataFrame(given.reshape(len(given), -1))
    given.to_csv(folder / "rows", index=False)
    expected = [np.asarray(answer).reshape(ROWS, -1).tolist() for answer in trained.answers]
    (folder / "expected.json").write_text(json.dumps(expected))


FLAVORS = {train.__name__: train for train in (xgboost, lightgbm, catboost, pytorch, keras, sklearn)}


def main(folder: Path, flavors: Sequence[str]) -> None:
    """Train and save all models of some flavors."""
    warnings.simplefilter("ignore")
    for flavor in flavors:
        for name, trained in FLAVORS[flavor]():
            _write(folder / f"{flavor}, {name}", trained)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
