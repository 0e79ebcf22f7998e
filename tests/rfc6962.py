"""RFC 6962 read word by word: trees and proofs by the definitions of section 2.1, with nothing of Headgate's, and the
vectors of Certificate Transparency's reference implementation."""

import hashlib
from collections.abc import Sequence

# The leaves and roots of Certificate Transparency's reference implementation, for trees of 1 to 8 leaves.
LEAVES = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
_ONE, _FOUR = (
    "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
    "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
)
_TWO_THREE, _FOUR_FIVE, _SIX_SEVEN, _FOUR_TO_SEVEN = (
    "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
    "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
    "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
    "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
)
# Leaf (from 0), number of leaves, and the path.
INCLUSION = [
    (0, 1, []),
    (0, 2, [_ONE]),
    (1, 2, [ROOTS[0]]),
    (0, 8, [_ONE, _TWO_THREE, _FOUR_TO_SEVEN]),
    (5, 8, [_FOUR, _SIX_SEVEN, ROOTS[3]]),
    (2, 3, [ROOTS[1]]),
    (1, 5, [ROOTS[0], _TWO_THREE, _FOUR]),
]
# Leaves before, leaves now, and the proof.
CONSISTENCY = [
    (1, 1, []),
    (1, 8, [_ONE, _TWO_THREE, _FOUR_TO_SEVEN]),
    (2, 8, [_TWO_THREE, _FOUR_TO_SEVEN]),
    (6, 8, [_FOUR_FIVE, _SIX_SEVEN, ROOTS[3]]),
    (2, 5, [_TWO_THREE, _FOUR]),
]


def defined(leaves: Sequence[bytes]) -> bytes:
    """MTH as section 2.1 of RFC 6962 defines it."""
    if not leaves:
        return hashlib.sha256().digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\x00" + leaves[0]).digest()
    k = largest_power_below(len(leaves))
    return hashlib.sha256(b"\x01" + defined(leaves[:k]) + defined(leaves[k:])).digest()


def largest_power_below(count: int) -> int:
    k = 1
    while k * 2 < count:
        k *= 2
    return k


def defined_path(m: int, leaves: Sequence[bytes]) -> list[bytes]:
    """PATH of section 2.1.1."""
    if len(leaves) <= 1:
        return []
    k = largest_power_below(len(leaves))
    if m < k:
        return [*defined_path(m, leaves[:k]), defined(leaves[k:])]
    return [*defined_path(m - k, leaves[k:]), defined(leaves[:k])]


def defined_proof(m: int, leaves: Sequence[bytes], whole: bool = True) -> list[bytes]:
    """SUBPROOF of section 2.1.2."""
    if m == len(leaves):
        return [] if whole else [defined(leaves)]
    k = largest_power_below(len(leaves))
    if m <= k:
        return [*defined_proof(m, leaves[:k], whole), defined(leaves[k:])]
    return [*defined_proof(m - k, leaves[k:], False), defined(leaves[:k])]
