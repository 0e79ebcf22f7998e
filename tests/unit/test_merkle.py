"""The Merkle tree is RFC 6962's: its reference vectors, its definition read word by word, and its proofs."""

import hashlib
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.merkle import (
    EMPTY,
    Frontier,
    Node,
    consistency_path,
    inclusion_path,
    joined,
    leaf_hash,
    root_from_inclusion,
)

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
SIZES = st.integers(1, 200)


def grown(size: int) -> tuple[Frontier, dict[Node, bytes]]:
    """A tree over the numbers below `size`, and every node that it has kept."""
    tree, kept = Frontier(), dict[Node, bytes]()
    for number in range(size):
        leaf = leaf_hash(str(number).encode())
        kept[(0, number)] = leaf
        kept |= tree.add(leaf)
    return tree, kept


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


def numbers(size: int) -> list[bytes]:
    return [str(number).encode() for number in range(size)]


def test_the_reference_vectors() -> None:
    tree = Frontier()
    assert tree.root() == EMPTY
    for leaf, root in zip(LEAVES, ROOTS, strict=True):
        tree.add(leaf_hash(bytes.fromhex(leaf)))
        assert tree.root().hex() == root


@given(SIZES)
def test_a_tree_that_grew_has_the_defined_root(size: int) -> None:
    assert grown(size)[0].root() == defined(numbers(size))


@given(SIZES, st.data())
def test_proofs_of_inclusion_are_the_defined_ones_and_lead_to_the_root(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    tree, kept = grown(size)
    path = [joined(subtrees, kept.__getitem__) for subtrees in inclusion_path(index, size)]
    assert path == defined_path(index, numbers(size))
    assert root_from_inclusion(index, size, kept[(0, index)], path) == tree.root()


@given(SIZES, st.data())
def test_a_proof_proves_nothing_else(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    tree, kept = grown(size)
    path = [joined(subtrees, kept.__getitem__) for subtrees in inclusion_path(index, size)]
    assert root_from_inclusion(index, size, leaf_hash(b"another"), path) != tree.root()
    with pytest.raises(ValueError, match="longer"):
        root_from_inclusion(index, size, kept[(0, index)], [*path, EMPTY])
    if path:
        with pytest.raises(ValueError, match="shorter"):
            root_from_inclusion(index, size, kept[(0, index)], path[:-1])


@given(SIZES, st.data())
def test_proofs_of_consistency_are_the_defined_ones(size: int, data: st.DataObject) -> None:
    old = data.draw(st.integers(1, size))
    _, kept = grown(size)
    path = [joined(subtrees, kept.__getitem__) for subtrees in consistency_path(old, size)]
    assert path == defined_proof(old, numbers(size))


@pytest.mark.parametrize(("index", "size"), [(1, 1), (-1, 3), (0, 0)])
def test_a_leaf_that_is_not_there_has_no_proof(index: int, size: int) -> None:
    with pytest.raises(ValueError, match="is not in a tree"):
        inclusion_path(index, size)
    with pytest.raises(ValueError, match="is not in a tree"):
        root_from_inclusion(index, size, EMPTY, [])
