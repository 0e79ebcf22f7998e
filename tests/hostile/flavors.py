"""Harm in the formats of other libraries than scikit-learn: PyTorch, Keras, XGBoost, LightGBM and CatBoost."""

import json
import struct
from collections.abc import Callable, Mapping

from tests.hostile import Artifact, Artifacts, Bait, in_model
from tests.hostile.archives import packed
from tests.hostile.pickles import call, evil

Data = Callable[[Bait], bytes]


def _card(flavor: str, **settings: str) -> str:
    return json.dumps({"flavors": {flavor: settings}})


TORCH = _card("pytorch", model_data="data", pytorch_version="2.13.0")
KERAS = _card("keras", data="data", keras_backend="torch")
_MARKS = {"model/.data/serialization_id": b"1", "model/byteorder": b"little"}


def torch_pickle(data: bytes, **members: bytes) -> bytes:
    """An archive as torch.save writes it."""
    return packed({**_MARKS, "model/data.pkl": data, "model/data/0": bytes(8), **members})


def exported(
    target: str = "torch.ops.aten.relu.default", expression: str = "Symbol('s1', integer=True)", **more: object
) -> dict[str, bytes]:
    """The members of an archive as torch.export.save writes it, with one call and one size."""
    sizes = [{"as_expr": {"expr_str": expression, "hint": {"as_int": 2}}}]
    graph = {"nodes": [{"target": target, "inputs": []}], "tensor_values": {"x": {"sizes": sizes}}, **more}
    program = {"graph_module": {"graph": graph}, "guards_code": more.get("guards_code", [])}
    return {**_MARKS, "model/models/model.json": json.dumps(program).encode()}


def weights(path: str = "weight_0", use_pickle: bool = False) -> dict[str, bytes]:
    """An exported program's list of weights."""
    config = {"config": {"w": {"path_name": path, "use_pickle": use_pickle}}}
    return {"model/data/weights/model_weights_config.json": json.dumps(config).encode()}


def _exported(**words: object) -> Data:
    return lambda bait: packed(exported(**words))  # type: ignore[arg-type]  # each by its own name


def _inputs(data: bytes) -> bytes:
    return packed({**exported(), "model/data/sample_inputs/model.pt": data})


PICKLES: Mapping[str, Data] = {
    "a call": lambda bait: torch_pickle(evil(bait)),
    "a shell": lambda bait: torch_pickle(call("os", "system", bait.command)),
    "a tensor's bytes that are unpickled": lambda bait: torch_pickle(call("torch.storage", "_load_from_bytes", "x")),
    "a module of code by value": lambda bait: torch_pickle(call("cloudpickle.cloudpickle", "_make_skeleton_class", "")),
    "a hub": lambda bait: torch_pickle(call("torch.hub", "load", "theirs/model")),
    "a library to load": lambda bait: torch_pickle(call("torch._ops", "_Ops.load_library", "/tmp/evil.so")),
    "a dotted layer": lambda bait: torch_pickle(call("torch.nn.modules.linear", "torch.serialization.os.system", "")),
    "a function among the layers": lambda bait: torch_pickle(call("torch.nn.modules.module", "_addindent", "")),
    "a compiled kernel": lambda bait: torch_pickle(call("torch.utils.cpp_extension", "load_inline", "")),
    "a reduction of another module": lambda bait: torch_pickle(call("torch._utils", "_rebuild_wrapper_subclass", "")),
    "TorchScript": lambda bait: torch_pickle(b"\x80\x02N.", **{"model/code/__torch__/m.py": bait.code.encode()}),
    "TorchScript's debug records": lambda bait: torch_pickle(b"\x80\x02N.", **{"model/code/x.debug_pkl": evil(bait)}),
    "constants": lambda bait: torch_pickle(b"\x80\x02N.", **{"model/constants.pkl": evil(bait)}),
}
EXPORTS: Mapping[str, Data] = {
    "a call of the shell": _exported(target="torch.serialization.os.system"),
    "a call of torch.load": _exported(target="torch.load"),
    "a call of Python's eval": _exported(target="torch.serialization.builtins.eval"),
    "a file as a tensor": _exported(target="torch.ops.aten.from_file.default"),
    "operators of others": _exported(target="torch.ops.evil.run.default"),
    "an operator of Python": _exported(target="_operator.methodcaller"),
    "an extension's operator": _exported(target="#evil:run"),
    "an expression that imports": _exported(expression="__import__('os').system('true')"),
    "an expression of characters": _exported(expression="exec(chr(49) + chr(50))"),
    "an expression with attributes": _exported(expression="Symbol('s').__class__.__base__.__subclasses__()"),
    "an expression with a lambda": _exported(expression="(lambda: Symbol('s1'))()"),
    "a guard": _exported(guards_code=["__import__('os').system('true')"]),
    "objects of their own": _exported(custom_obj_values={"x": {"class_fqn": "evil"}}),
    "weights that are pickles": lambda bait: packed(
        {**exported(), **weights(use_pickle=True), "model/data/weights/weight_0": evil(bait)}
    ),
    "weights in a file of another name": lambda bait: packed({**exported(), **weights("../models/model.json")}),
    "a list of weights that is none": lambda bait: packed(
        {**exported(), "model/data/weights/model_weights_config.json": b'{"config": {"w": 1}}'}
    ),
    "constants that are pickles": lambda bait: packed(
        {**exported(), "model/data/constants/custom_obj_0": evil(bait)},
    ),
    "sample inputs": lambda bait: _inputs(torch_pickle(evil(bait))),
    "sample inputs of the older format": lambda bait: _inputs(evil(bait)),
    "sample inputs three archives deep": lambda bait: _inputs(packed({"x.zip": packed({"data.pkl": evil(bait)})})),
    "a library": lambda bait: packed({**exported(), "model/data/aotinductor/model/x.so": b"\x7fELF\x02\x01\x01"}),
    "a program that is no JSON": lambda bait: packed({**_MARKS, "model/models/model.json": b"["}),
}


def hdf5(kind: int = 0x11, content: bytes = bytes(16), flags: int = 0, behind: bytes = b"") -> bytes:
    """An HDF5 file whose root has one message of this kind; `behind` lies at byte 160."""
    start = b"\x89HDF\r\n\x1a\n" + bytes(5) + b"\x08\x08" + bytes(49) + struct.pack("<Q", 96) + bytes(24)
    message = struct.pack("<HHB3x", kind, len(content), flags) + content
    header = struct.pack("<BxHIIxxxx", 1, 1, 1, len(message)) + message
    return (start + header).ljust(160, b"\x00") + behind


def _group(link: int) -> bytes:
    """A root with one member by a link of this type."""
    leaf = b"SNOD" + struct.pack("<BxH", 1, 1) + struct.pack("<QQI", 8, 96, link) + bytes(20)
    return hdf5(content=struct.pack("<QQ", 160, 160), behind=leaf)


def layer(name: str, module: str | None = "keras.layers", registered: str | None = None, **config: object) -> object:
    """One layer as Keras writes it."""
    return {"class_name": name, "module": module, "registered_name": registered, "config": config}


def keras(*layers: object, weights: bytes | None = None) -> bytes:
    """A `.keras` archive."""
    config = {"class_name": "Sequential", "module": "keras", "config": {"layers": list(layers)}}
    members = {"config.json": json.dumps(config).encode(), "metadata.json": b"{}"}
    return packed({**members, "model.weights.h5": _group(0) if weights is None else weights})


_CODE = {"class_name": "__lambda__", "config": {"code": "4wEAAAAAAAAA"}}
LAYERS: Mapping[str, object] = {
    "a lambda": layer("Lambda", function=_CODE),
    "a lambda in a layer": layer("Dense", activation=_CODE),
    "a lambda by another module": layer("Lambda", module="keras.src.layers.core.lambda_layer"),
    "a layer of their own": layer("Dense", module="evil.layers", registered="evil>Dense"),
    "a registered layer": layer("Dense", registered="theirs>Dense"),
    "a function of Python": layer("function", module="builtins", registered="eval"),
    "a class of the standard library": layer("Popen", module="subprocess"),
    "a module of PyTorch": layer("TorchModuleWrapper", module=None, serialized="gASVAAAA"),
    "a model of TensorFlow": layer("TFSMLayer", filepath="/tmp/evil"),
    "words from a file": layer("StringLookup", vocabulary="/etc/passwd"),
    "a function of Keras' own": layer("get_file", module="keras.utils"),
    "a class without a name": layer("", module="keras.layers"),
    "a dotted name": layer("os.system", module="keras.layers"),
}
WEIGHTS: Mapping[str, Data] = {
    "a link": lambda bait: _group(2),
    "a list of external files": lambda bait: hdf5(0x07),
    "a link by message": lambda bait: hdf5(0x06),
    "numbers of a virtual data set": lambda bait: hdf5(0x08, b"\x04\x03" + bytes(22)),
    "a type from elsewhere": lambda bait: hdf5(0x03, flags=2),
    "a group that is none": lambda bait: hdf5(content=struct.pack("<QQ", 96, 96)),
    "a newer version": lambda bait: b"\x89HDF\r\n\x1a\n\x03" + bytes(100),
    "an end before its time": lambda bait: hdf5(content=struct.pack("<QQ", 1 << 40, 0)),
}
OTHERS: Mapping[str, tuple[str, str, Data]] = {
    "LightGBM, a pickle": (
        _card("lightgbm", data="model.pkl", serialization_format="cloudpickle"),
        "model.pkl",
        lambda bait: call("os", "system", bait.command),
    ),
    "LightGBM, a function of its module": (
        _card("lightgbm", data="model.pkl", serialization_format="pickle"),
        "model.pkl",
        lambda bait: call("lightgbm.basic", "_load_lib", ""),
    ),
    "XGBoost, a function of its module": (
        _card("sklearn", pickled_model="model.pkl"),
        "model.pkl",
        lambda bait: call("xgboost.core", "_load_lib", ""),
    ),
    "XGBoost, JSON before an archive": (
        _card("xgboost", data="model.json"),
        "model.json",
        lambda bait: b'{"learner": {}}' + packed({"data.pkl": evil(bait)}),
    ),
    "XGBoost, a pickle by the name of its format": (
        _card("xgboost", data="model.ubj"),
        "model.ubj",
        lambda bait: evil(bait),
    ),
    "CatBoost, its mark before an archive": (
        _card("catboost", data="model.cb"),
        "model.cb",
        lambda bait: b"CBM1" + packed({"data.pkl": evil(bait)}),
    ),
    "CatBoost, a pickle": (_card("catboost", data="model.cb"), "model.cb", lambda bait: evil(bait)),
    "Keras, objects of their own": (KERAS, "data/keras_custom_objects.cloudpickle", lambda bait: evil(bait)),
    "TensorFlow, a saved model": (
        _card("tensorflow", data="data", model_type="tf2-module"),
        "data/saved_model.pb",
        lambda bait: b"\x08\x01\x12\x0a\x0a\x08WriteFile\xff",
    ),
}


def artifacts() -> Artifacts:
    """By library."""
    for name, data in PICKLES.items():
        yield Artifact("PyTorch", f"pickled, {name}", in_model(data, "data/model.pth", TORCH), "data/model.pth")
    for name, data in EXPORTS.items():
        yield Artifact("PyTorch", f"exported, {name}", in_model(data, "data/model.pt2", TORCH), "data/model.pt2")
    for name, found in LAYERS.items():

        def layered(_bait: Bait, found: object = found) -> bytes:
            return keras(found)

        yield Artifact("Keras", name, in_model(layered, "data/model.keras", KERAS), "data/model.keras")
    for name, data in WEIGHTS.items():

        def weighted(bait: Bait, data: Data = data) -> bytes:
            return keras(weights=data(bait))

        yield Artifact("Keras", f"weights, {name}", in_model(weighted, "data/model.keras", KERAS), "data/model.keras")
    for name, (card, file, data) in OTHERS.items():
        yield Artifact("boosting and others", name, in_model(data, file, card), file)
