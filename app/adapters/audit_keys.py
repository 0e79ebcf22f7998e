"""The port Signer with Ed25519 keys in PEM files."""

from collections.abc import Sequence
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from app.domain.errors import Fault
from app.domain.notes import PublicKey
from app.secret_files import make_once


class KeyFiles:
    """Signs with the private key of each file, the main one first. The files are read anew each time, so that keys are
    exchanged without a restart; with `make` a single one that is missing is made."""

    def __init__(self, files: Sequence[Path], make: bool = False) -> None:
        self._files, self._make = files, make

    def keys(self, name: str) -> list[PublicKey]:
        """The public keys under this name. Raises Fault where a file is missing or no Ed25519 key."""
        return [_public(name, key) for key in self._private()]

    def sign(self, name: str, text: bytes) -> list[tuple[PublicKey, bytes]]:
        """A signature of each key over the text. Raises Fault as `keys` does."""
        return [(_public(name, key), key.sign(text)) for key in self._private()]

    def _private(self) -> list[Ed25519PrivateKey]:
        if self._make and not self._files[0].exists():
            _make(self._files[0])
        return [_read(file) for file in self._files]


def _public(name: str, key: Ed25519PrivateKey) -> PublicKey:
    return PublicKey(name, key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw))


def _read(file: Path) -> Ed25519PrivateKey:
    remedy = "HEADGATE_AUDIT_KEY names PEM files; `openssl genpkey -algorithm ed25519` makes one."
    try:
        key = load_pem_private_key(file.read_bytes(), password=None)
    except OSError as error:
        raise Fault(f"The audit trail's key {file.name} cannot be read: {error.strerror}.", remedy) from error
    except (ValueError, TypeError) as error:  # what is said of it may quote the key
        raise Fault(f"The audit trail's key {file.name} is no private key without a password.", remedy) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise Fault(f"The audit trail's key {file.name} is not of Ed25519.", remedy)
    return key


def _make(file: Path) -> None:
    """Write a new key, whole or not at all; of several processes that do so at once the first one wins."""
    try:
        key = Ed25519PrivateKey.generate()
        make_once(file, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    except OSError as error:
        reason = f"The audit trail's key {file.name} cannot be made: {error.strerror}."
        raise Fault(reason, "Mend its folder.") from error
