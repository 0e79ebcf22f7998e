"""DummyRegressor and DummyClassifier: the same answer to every row.

Source: sklearn/dummy.py. The regressor says `constant_`; the classifier with the strategy `prior` gives the classes'
shares and names the most frequent one, `most_frequent` and `constant` are certain of one class. `stratified` and
`uniform` answer by chance, and so have no conversion.
"""

import numpy as np
from sklearn.dummy import DummyClassifier, DummyRegressor

from . import parts


def register() -> None:
    parts.regressor(DummyRegressor, _convert_regressor)
    parts.classifier(DummyClassifier, _convert_classifier)


def _convert_regressor(task: parts.Task) -> None:
    task.answer(task.repeated(np.asarray(task.model.constant_, dtype=np.float64).reshape(1, -1)))


def _convert_classifier(task: parts.Task) -> None:
    model = task.model
    if model.strategy in ("stratified", "uniform") or model.n_outputs_ != 1:
        raise NotImplementedError(f"A DummyClassifier with strategy={model.strategy!r} answers by chance.")
    prior = np.asarray(model.class_prior_, dtype=np.float64)
    certain = np.zeros(len(prior))
    at = int(prior.argmax())
    if model.strategy == "constant":
        at = int(np.flatnonzero(model.classes_ == np.ravel(model.constant)[0])[0])
    certain[at] = 1.0
    said = (prior if model.strategy == "prior" else certain).reshape(1, -1)
    task.decide(task.repeated(said))
