"""Which kinds of files a model may hold, told by their content: what nobody here can look into is refused."""

import re

from numpy.lib import format as npy

from .pickle_prefix import is_whole_pickle

_PACKED = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x04\x22\x4d\x18": "lz4",
    b"x\x01": "zlib",
    b"x\x5e": "zlib",
    b"x\x9c": "zlib",
    b"x\xda": "zlib",
    b"7z\xbc\xaf": "7z",
    b"Rar!": "rar",
    b"\x89HDF\r\n": "HDF5",
}
_HARMLESS = (
    *(b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a"),
    # Formats of numbers, each read by one parser and without code in them: CatBoost's, and UBJSON, which is XGBoost's.
    *(b"CBM1", b"{L\x00\x00\x00\x00\x00\x00"),
)
_ZIP = (b"PK\x03\x04", b"PK\x05\x06")
_NO_TEXT = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f]")
_CODE_NAMES = re.compile(r"\.(py|pyc|pyd|so(\.\d+)*|dll|dylib|sh|exe|bat|ps1)$", re.IGNORECASE)
_CODE_STARTS = {b"\x7fELF": "a program", b"MZ": "a program", b"#!": "a script"}
_CODE = "which is never run here: save the model without code of its own (code_paths)"


def problem(data: bytes) -> str:
    """Why nobody can look into a file of this content; empty where somebody can."""
    packed = next((kind for magic, kind in _PACKED.items() if data.startswith(magic)), None)
    if packed is None and data[257:262] == b"ustar":
        packed = "tar"
    if packed:
        return f"is a {packed} file, which the scanner cannot look into"
    return "" if _is_known(data) else "is of a kind that no scanner here knows"


def code(data: bytes, name: str) -> str:
    """What code a file holds by its name or its first bytes; empty where it looks like none."""
    start = next((kind for magic, kind in _CODE_STARTS.items() if data.startswith(magic)), None)
    if start:
        return f"{start}, {_CODE}"
    return f"Python code or a program, {_CODE}" if _CODE_NAMES.search(name) else ""


def is_yaml(name: str) -> bool:
    """Whether a file is YAML by its name, as MLflow writes and reads it."""
    return name.lower().endswith((".yaml", ".yml")) or name.rpartition("/")[2] == "MLmodel"


def _is_known(data: bytes) -> bool:
    if data.startswith((*_HARMLESS, *_ZIP, npy.MAGIC_PREFIX)):
        return True
    if data.startswith(b"PAR1") and data.endswith(b"PAR1"):
        return True
    return _is_text(data) or is_whole_pickle(data) or _is_onnx(data)


def _is_text(data: bytes) -> bool:
    try:
        return not _NO_TEXT.search(data.decode())
    except UnicodeDecodeError:
        return False


def _is_onnx(data: bytes) -> bool:
    """ONNX has no magic number; its first field is a small version number, and a graph follows somewhere."""
    if not data.startswith(b"\x08"):
        return False
    import onnx  # It takes a moment, and few files begin like that.

    try:
        return bool(onnx.load_from_string(data).HasField("graph"))
    except Exception:  # noqa: BLE001 - whatever Protobuf says of it, it is no ONNX
        return False
