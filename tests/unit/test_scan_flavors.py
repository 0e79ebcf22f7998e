"""The scanner on formats of other libraries: harmless files of the same make as the hostile ones in `tests/hostile`."""

from pathlib import Path

import pytest

from tests.hostile.archives import packed
from tests.hostile.flavors import KERAS, TORCH, exported, hdf5, keras, layer, torch_pickle, weights
from workers.sandbox import scan, scan_hdf5

NUMBERS = b"\x80\x04\x8c\x02os\x93"  # a tensor's bytes that look like a pickle
HARMLESS: dict[str, tuple[str, str, bytes]] = {
    "pickled": (TORCH, "data/model.pth", torch_pickle(b"\x80\x02]q\x00.")),
    "exported": (TORCH, "data/model.pt2", packed({**exported(), **weights(), "model/data/weights/weight_0": NUMBERS})),
    "exported with a size": (
        TORCH,
        "data/model.pt2",
        packed(exported(expression="Add(Integer(1), FloorDiv(Symbol('s77', integer=True), Integer(2)))")),
    ),
    "exported with a guard": (TORCH, "data/model.pt2", packed(exported(guards_code=["L['x'].size()[0] % 2 == 0"]))),
    "with sample inputs": (
        TORCH,
        "data/model.pt2",
        packed({**exported(), "model/data/sample_inputs/model.pt": torch_pickle(b"\x80\x02]q\x00.")}),
    ),
    "layers": (KERAS, "data/model.keras", keras(layer("Dense"), layer("Adam", "keras.src.optimizers.adam"))),
    "boosted": ("flavors: {xgboost: {data: model.ubj}}", "model.ubj", b"{L\x00\x00\x00\x00\x00\x00\x00\x07learner"),
}


@pytest.mark.parametrize("kind", HARMLESS)
def test_harmless_files_pass(tmp_path: Path, kind: str) -> None:
    card, file, data = HARMLESS[kind]
    (tmp_path / "model" / file).parent.mkdir(parents=True)
    (tmp_path / "model" / "MLmodel").write_text(card)
    (tmp_path / "model" / file).write_bytes(data)

    result = scan.run({}, tmp_path, tmp_path)

    assert (result["findings"], result["errors"]) == ([], [])


def test_hdf5_that_is_cut_anywhere_is_refused_or_lacks_nothing() -> None:
    """The walk never runs away and never fails otherwise."""
    whole = keras_weights()

    for length in range(len(whole)):
        problem = scan_hdf5.problem(whole[:length])
        assert problem == "" or problem.startswith("is "), length
    assert scan_hdf5.problem(whole[:100]) != ""
    assert scan_hdf5.problem(whole) == ""


def keras_weights() -> bytes:
    """A file with one empty object at its root."""
    return hdf5(0x12, bytes(8))
