"""The models of the example: one preparation, several regressors on the logarithm of the price."""

from typing import Literal, get_args

from sklearn.compose import ColumnTransformer
from sklearn.ensemble import GradientBoostingRegressor, HistGradientBoostingRegressor, RandomForestRegressor
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from examples.airbnb.data import NUMBERS, TEXT

Kind = Literal["linear", "gbr", "forest", "hist", "shuffled", "strict"]
KINDS: tuple[Kind, ...] = get_args(Kind)


def build(kind: Kind) -> Pipeline:
    """An untrained pipeline.

    `linear` is the plain first release. `forest` beats it, and its default ONNX conversion is wrong in some rows.
    `shuffled` is the same forest, to be trained on labels that were mixed up. `strict` is as good offline as any, but
    its encoder refuses a category it has not seen.
    """
    regressors = {
        "linear": LinearRegression(),
        "gbr": GradientBoostingRegressor(n_estimators=60, max_depth=5, subsample=0.5, random_state=7),
        "forest": _forest(),
        "hist": HistGradientBoostingRegressor(max_iter=120, random_state=7),
        "shuffled": _forest(),
        "strict": _forest(),
    }
    encoder = OneHotEncoder(handle_unknown="error" if kind == "strict" else "ignore", sparse_output=False)
    prepare = ColumnTransformer([("text", encoder, TEXT), ("numbers", StandardScaler(), NUMBERS)])
    return Pipeline([("prepare", prepare), ("model", regressors[kind])])


def _forest() -> RandomForestRegressor:
    return RandomForestRegressor(n_estimators=30, max_depth=12, min_samples_leaf=5, n_jobs=2, random_state=7)
