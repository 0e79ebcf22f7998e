"""Which names files of a model may have: what every file system, archive and person reads in the same way."""

import unicodedata

NAME_BYTES, PATH_BYTES = 200, 1000
_INVISIBLE = frozenset({"Cc", "Cf", "Zl", "Zp"})


def problem(name: str, path: str) -> str:
    """What is wrong with one file's or folder's `name`, at `path` below the model's folder; empty where nothing is."""
    if name in ("", ".", "..") or "/" in name:
        return "is no plain name, and could lead out of its folder"
    try:
        name_bytes, path_bytes = len(name.encode()), len(path.encode())
    except UnicodeEncodeError:
        return "is not valid UTF-8"
    if name_bytes > NAME_BYTES or path_bytes > PATH_BYTES:
        return f"is longer than {NAME_BYTES} bytes, or its path than {PATH_BYTES}"
    if "\\" in name:
        return "holds a backslash, which is a folder separator elsewhere"
    if any(unicodedata.category(character) in _INVISIBLE for character in name):
        return "holds control or invisible characters"
    return ""


def folded(path: str) -> str:
    """Equal for paths that some file systems hold apart and others take for one."""
    # Case folding can undo the normal form (and makes two letters of some): the second turn makes it stable.
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())


def shown(path: str) -> str:
    """The path as people may safely see it: escaped, and cut in its middle where it is long."""
    text = ascii(path)
    return text if len(text) <= 160 else f"{text[:80]}...{text[-70:]}"
