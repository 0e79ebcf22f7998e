"""Harm in archives, arrays and other formats: packed, nested, bombs, odd members, and what unpacks only elsewhere."""

import bz2
import gzip
import io
import json
import lzma
import struct
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Callable, Mapping

import numpy as np

from tests.hostile import Artifact, Artifacts, Bait, in_model
from tests.hostile.pickles import evil

Members = Mapping[str, bytes]


def packed(members: Members, method: int = zipfile.ZIP_STORED) -> bytes:
    """A zip file."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return stream.getvalue()


def array(data: bytes) -> bytes:
    """An array file of Python objects with `data` where their pickle belongs."""
    stream = io.BytesIO()
    np.save(stream, np.array([None], dtype=object), allow_pickle=True)
    header = stream.getvalue()
    return header[: header.index(b"\n") + 1] + data


def _tar(bait: Bait) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        info = tarfile.TarInfo("../../evil.pkl")
        info.size = len(evil(bait))
        archive.addfile(info, io.BytesIO(evil(bait)))
    return stream.getvalue()


def _twice(bait: Bait) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        archive.writestr("schema.json", "{}")
        archive.writestr("schema.json", json.dumps({"__module__": "os", "__class__": "system"}))
    return stream.getvalue()


def _linked(bait: Bait) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        info = zipfile.ZipInfo("weights.npy")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, str(bait.secret))
    return stream.getvalue()


def _encrypted(bait: Bait) -> bytes:
    data = bytearray(packed({"data.pkl": evil(bait)}))
    data[6] |= 1
    data[data.rindex(b"PK\x01\x02") + 8] |= 1
    return bytes(data)


def _other_name_inside(bait: Bait) -> bytes:
    """The list of members says another name than the member itself."""
    return packed({"weights1.npy": evil(bait)}).replace(b"weights1.npy", b"archive/.pkl", 1)


def _wrong_sum(bait: Bait) -> bytes:
    data = bytearray(packed({"data.pkl": evil(bait)}))
    data[14] ^= 0xFF
    data[data.rindex(b"PK\x01\x02") + 16] ^= 0xFF
    return bytes(data)


def _skops(schema: object) -> Callable[[Bait], bytes]:
    return lambda bait: packed({"schema.json": json.dumps(schema).encode()})


def _node(module: str, name: str, loader: str = "ObjectNode", **more: object) -> dict[str, object]:
    return {"__module__": module, "__class__": name, "__loader__": loader, "protocol": 2, **more}


_RIDGE = _node("sklearn.linear_model._ridge", "Ridge")
_BOMB_BYTES = 90 << 20

SKOPS: Mapping[str, object] = {
    "a type": _node("os", "system"),
    "a type deep within": {**_RIDGE, "content": {"content": [_node("builtins", "eval", "TypeNode")]}},
    "a function": _node("subprocess", "getoutput", "FunctionNode"),
    "a partial": _node("functools", "partial", "PartialNode", content={"func": _node("os", "system", "FunctionNode")}),
    "an operator": _node("operator", "methodcaller", "OperatorFuncNode", attrs=["system"]),
    "a private method": {**_RIDGE, "__loader__": "MethodNode", "content": {"func": "__reduce_ex__", "obj": _RIDGE}},
    "a method of another type": _node("builtins", "exec", "MethodNode", content={"func": "x", "obj": _RIDGE}),
    "an unknown node": {**_RIDGE, "__loader__": "EvalNode"},
    "a reduction": _node("builtins", "getattr", "ConstructorFromReduceNode", content=[]),
    "a dotted class": _node("sklearn.base", "warnings.sys.exit"),
}

FILES: Mapping[str, tuple[str, Callable[[Bait], bytes]]] = {
    "a pickle in a zip": ("model.zip", lambda bait: packed({"data.pkl": evil(bait)})),
    "a pickle in a compressed zip": ("model.bin", lambda bait: packed({"d": evil(bait)}, zipfile.ZIP_DEFLATED)),
    "a zip behind text": ("notes.txt", lambda bait: b"some text\n" + packed({"data.pkl": evil(bait)})),
    "a zip behind a pickle": ("model.pkl", lambda bait: evil(bait) + packed({"harmless.txt": b"hello"})),
    "a zip behind a picture": ("a.png", lambda bait: b"\x89PNG\r\n\x1a\n" + packed({"data.pkl": evil(bait)})),
    "a zip in a zip": ("model.zip", lambda bait: packed({"inner.zip": packed({"data.pkl": evil(bait)})})),
    "two members of one name": ("model.skops", _twice),
    "a member that is a link": ("model.zip", _linked),
    "a member named to climb": ("model.zip", lambda bait: packed({"../../evil.txt": b"x"})),
    "a member named from the root": ("model.zip", lambda bait: packed({"/etc/cron.d/evil": b"x"})),
    "a member with backslashes": ("model.zip", lambda bait: packed({"..\\..\\evil.txt": b"x"})),
    "a member on a drive": ("model.zip", lambda bait: packed({"C:evil.txt": b"x"})),
    "an encrypted member": ("model.zip", _encrypted),
    "a member of another name": ("model.zip", _other_name_inside),
    "a member with a wrong sum": ("model.pt", _wrong_sum),
    "a bomb": ("model.zip", lambda bait: packed({"zeros": bytes(_BOMB_BYTES)}, zipfile.ZIP_DEFLATED)),
    "a bomb in bzip2": ("model.zip", lambda bait: packed({"zeros": bytes(_BOMB_BYTES)}, zipfile.ZIP_BZIP2)),
    "a bomb of many members": ("model.zip", lambda bait: packed({str(n): b"" for n in range(20_001)})),
    "gzip": ("model.pkl.gz", lambda bait: gzip.compress(evil(bait))),
    "bzip2": ("model.pkl", lambda bait: bz2.compress(evil(bait))),
    "xz": ("model.pkl", lambda bait: lzma.compress(evil(bait))),
    "lzma alone": ("model.pkl", lambda bait: lzma.compress(evil(bait), lzma.FORMAT_ALONE)),
    "zlib, as joblib writes it": ("model.joblib", lambda bait: zlib.compress(evil(bait))),
    "joblib's older mark": ("model.joblib", lambda bait: b"ZF0x10      " + zlib.compress(evil(bait))),
    "lz4": ("model.pkl", lambda bait: b"\x04\x22\x4d\x18" + evil(bait)),
    "zstd": ("model.pkl", lambda bait: b"\x28\xb5\x2f\xfd" + evil(bait)),
    "7z": ("model.7z", lambda bait: b"7z\xbc\xaf\x27\x1c" + evil(bait)),
    "rar": ("model.rar", lambda bait: b"Rar!\x1a\x07" + evil(bait)),
    "tar": ("model.tar", _tar),
    "tar in gzip": ("model.nemo", lambda bait: gzip.compress(_tar(bait))),
    "an array of objects": ("data.npy", lambda bait: array(evil(bait))),
    "an array of objects by another name": ("data.txt", lambda bait: array(evil(bait))),
    "an array of objects in npz": ("data.npz", lambda bait: packed({"a.npy": array(evil(bait))})),
    "a pickle in npz": ("data.npz", lambda bait: packed({"a.npy": evil(bait)})),
    "an array with a header that is code": (
        "data.npy",
        lambda bait: b"\x93NUMPY\x01\x00" + struct.pack("<H", len(bait.code) + 1) + bait.code.encode() + b"\n",
    ),
    "an array with a header without end": ("data.npy", lambda bait: b"\x93NUMPY\x02\x00\xff\xff\xff\xff{"),
    "PyTorch": ("model.pt", lambda bait: packed({"archive/data.pkl": evil(bait), "archive/version": b"3"})),
    "PyTorch's older format": ("model.pth", lambda bait: b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19." + evil(bait)),
    "Keras with a lambda": (
        "model.keras",
        lambda bait: packed({"config.json": b'{"class_name": "Lambda"}', "model.weights.h5": b"\x89HDF\r\n\x1a\n"}),
    ),
    "HDF5": ("model.h5", lambda bait: b"\x89HDF\r\n\x1a\n" + bytes(64)),
    "a TensorFlow graph that reads files": ("saved_model.pb", lambda bait: b"\x08\x01\x12\x0a\x0a\x08ReadFile\xff"),
    "GGUF with a template": ("model.gguf", lambda bait: b"GGUF\x03\x00\x00\x00{{ cycler.__init__ }}"),
    "a Java archive": ("model.jar", lambda bait: packed({"A.class": b"\xca\xfe\xba\xbe\x00\x00\x00\x41"})),
    "R's own format": ("model.rds", lambda bait: b"X\n\x00\x00\x00\x03\x00\x04\x03\x00"),
    "bytes of no kind": ("model.bin", lambda bait: bytes(range(256))),
}


def artifacts() -> Artifacts:
    """Files of other kinds, and skops."""
    for name, (file, data) in FILES.items():
        yield Artifact("format", name, in_model(data, file), file)
    for name, schema in SKOPS.items():
        yield Artifact("skops", name, in_model(_skops(schema), "model.skops"), "model.skops:schema.json")
    yield Artifact(
        "skops",
        "an array of objects",
        in_model(lambda b: packed({"schema.json": b"{}", "1.npy": array(evil(b))}), "m"),
        "m:1.npy",
    )
