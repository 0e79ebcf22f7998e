"""scikit-learn, as pickle, cloudpickle or skops; its conversions are those of `ladder.py`."""

from collections.abc import Sequence

from .. import ladder
from ..hurt import Place
from ..mlmodel import Card
from ..native import Native
from ..tensors import Signature
from ..thresholds import of_model
from . import boosted


class Estimator(Native):
    """A scikit-learn estimator with its ladder."""

    rungs: Sequence[ladder.Rung] = ladder.RUNGS

    def __init__(self, card: Card, signature: Signature) -> None:
        super().__init__(card, signature)
        self.title = f"scikit-learn, {card.serialization}"

    def thresholds(self) -> Sequence[tuple[Place, float]]:
        return of_model(self.estimator, self._signature)

    def convert(self, rung: ladder.Rung, name: str) -> bytes:
        boosted.register()
        return ladder.convert(self, self._signature, rung, name)


def load(card: Card, signature: Signature) -> Estimator:
    """The estimator.

    Raises:
        Refused: it cannot be loaded here, or is neither a regressor nor a classifier.
    """
    return Estimator(card, signature)
