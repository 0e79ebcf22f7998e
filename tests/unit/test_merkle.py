"""The Merkle tree is RFC 6962's: its reference vectors, its definition read word by word, and its proofs."""

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
from app.verifier.headgate_verify import Tree
from tests.rfc6962 import CONSISTENCY, INCLUSION, LEAVES, ROOTS, defined, defined_path, defined_proof

SIZES = st.integers(1, 200)


def grown(size: int) -> tuple[Frontier, dict[Node, bytes]]:
    """A tree over the numbers below `size`, and every node that it has kept."""
    tree, kept = Frontier(), dict[Node, bytes]()
    for number in range(size):
        leaf = leaf_hash(str(number).encode())
        kept[(0, number)] = leaf
        kept |= tree.add(leaf)
    return tree, kept


def numbers(size: int) -> list[bytes]:
    return [str(number).encode() for number in range(size)]


def reference() -> tuple[list[bytes], dict[Node, bytes]]:
    """The roots of the reference trees as we make them, and every node that we keep."""
    tree, independent, roots, kept = Frontier(), Tree(), [], dict[Node, bytes]()
    for number, leaf in enumerate(LEAVES):
        kept[(0, number)] = leaf_hash(bytes.fromhex(leaf))
        kept |= tree.add(kept[(0, number)])
        independent.add(kept[(0, number)])
        assert independent.root() == tree.root()  # the verifier's own
        roots.append(tree.root())
    return roots, kept


def test_the_reference_roots() -> None:
    assert Frontier().root() == EMPTY == Tree().root()
    assert [root.hex() for root in reference()[0]] == ROOTS
    assert [defined([bytes.fromhex(leaf) for leaf in LEAVES[:size]]).hex() for size in range(1, 9)] == ROOTS


@pytest.mark.parametrize(("index", "size", "path"), INCLUSION)
def test_the_reference_paths(index: int, size: int, path: list[str]) -> None:
    roots, kept = reference()
    ours = [joined(subtrees, kept.__getitem__) for subtrees in inclusion_path(index, size)]
    assert [step.hex() for step in ours] == path
    assert root_from_inclusion(index, size, kept[(0, index)], ours) == roots[size - 1]


@pytest.mark.parametrize(("old", "size", "path"), CONSISTENCY)
def test_the_reference_proofs_of_consistency(old: int, size: int, path: list[str]) -> None:
    _, kept = reference()
    assert [joined(subtrees, kept.__getitem__).hex() for subtrees in consistency_path(old, size)] == path


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
