"""HDF5 as Keras writes weights: groups and numbers in this one file, and nothing else.

An HDF5 file can name other files to read from, by links, lists of external files and virtual data sets. So the file is
walked as the format's specification says (version 0, which h5py writes by default), and whatever is not on the list of
the good is a reason to refuse it.
"""

import struct
from collections.abc import Iterator

MAGIC = b"\x89HDF\r\n\x1a\n"
_MAX_OBJECTS = 50_000
_NOTHING, _LAYOUT, _CONTINUED, _GROUP = 0x00, 0x08, 0x10, 0x11
# Size, type and fill value of numbers, where they lie, filters, remarks, times, and where the rest of a list is.
_GOOD = frozenset({_NOTHING, 0x01, 0x03, 0x04, 0x05, _LAYOUT, 0x0B, 0x0C, 0x0E, _CONTINUED, _GROUP, 0x12, 0x15})
_SHARED = 0x02
_HARD_LINKS = (0, 1)


class _Odd(Exception):
    """What the file has and should not have."""


def problem(data: bytes) -> str:
    """Why a file of this content is not taken; empty where it is fine."""
    try:
        if data[:8] != MAGIC or data[8] != 0 or data[13:15] != b"\x08\x08":
            return "is HDF5 of another kind than Keras writes"
        _Walk(data).objects()
    except _Odd as odd:
        return f"is HDF5 with {odd}"
    except (struct.error, IndexError):
        return "is broken HDF5"
    return ""


class _Walk:
    def __init__(self, data: bytes) -> None:
        self._data = data

    def objects(self) -> None:
        """Look at every object that can be reached from the root."""
        waiting, seen = [self._at("<Q", 64)[0]], set()
        while waiting:
            header = waiting.pop()
            if header in seen:
                continue
            seen.add(header)
            if len(seen) > _MAX_OBJECTS:
                raise _Odd("more objects than any model has")
            for kind, content in self._messages(header):
                if kind == _GROUP:
                    waiting += self._members(self._at("<Q", content)[0])
                elif kind == _LAYOUT and (self._data[content] != 3 or self._data[content + 1] > 2):
                    raise _Odd("numbers that do not lie in it")

    def _at(self, shape: str, place: int) -> tuple[int, ...]:
        numbers: tuple[int, ...] = struct.unpack_from(shape, self._data, place)
        return numbers

    def _messages(self, header: int) -> Iterator[tuple[int, int]]:
        """(kind, place of the content) of all that an object's header says."""
        if self._data[header] != 1:
            raise _Odd("objects of a newer kind")
        blocks = [(header + 16, self._at("<I", header + 8)[0])]
        for count, (start, length) in enumerate(blocks):
            if count > _MAX_OBJECTS:
                raise _Odd("a list without end")
            place = start
            while place + 8 <= start + length:
                kind, size, flags = self._at("<HHB", place)
                if kind not in _GOOD:
                    raise _Odd(f"objects of the kind {kind:#x}, which may lead elsewhere")
                if flags & _SHARED:
                    raise _Odd("types that are kept elsewhere")
                if kind == _CONTINUED:
                    offset, more = self._at("<QQ", place + 8)
                    blocks.append((offset, more))
                yield kind, place + 8
                place += 8 + size

    def _members(self, tree: int) -> list[int]:
        """The headers of a group's members."""
        nodes, found = [tree], []
        for count, node in enumerate(nodes):
            if count > _MAX_OBJECTS:
                raise _Odd("a group without end")
            mark = self._data[node : node + 4]
            if mark == b"TREE":
                used = self._at("<H", node + 6)[0]
                nodes += [self._at("<Q", node + 32 + 16 * number)[0] for number in range(used)]
            elif mark == b"SNOD":
                entries = [node + 8 + 40 * number for number in range(self._at("<H", node + 6)[0])]
                if any(self._at("<I", entry + 16)[0] not in _HARD_LINKS for entry in entries):
                    raise _Odd("links")
                found += [self._at("<Q", entry + 8)[0] for entry in entries]
            else:
                raise _Odd("a group that cannot be read")
        return found
