"""The signed statement of a pack: in-toto Statement v1 in an envelope of DSSE, signed with the keys of the trail.

https://github.com/in-toto/attestation/tree/main/spec/v1 and https://github.com/secure-systems-lab/dsse. What is signed
begins with "DSSEv1", so that it is never taken for a checkpoint, which the same keys sign.
"""

import base64
import hashlib
import re
from typing import Any

from app.domain.canonical import canonical
from app.ports import Signer
from app.services.evidence.documents import decisions
from app.services.evidence.dossier import Dossier

PREDICATE = "urn:headgate:attestation:promotion:1"
_PAYLOAD = "application/vnd.in-toto+json"
_HEX = re.compile(r"sha256:([0-9a-f]{64})")


def envelope(signer: Signer, dossier: Dossier, manifest: bytes) -> dict[str, Any]:
    """The envelope around the statement about this pack. Raises Fault where a key cannot be read."""
    payload = canonical(statement(dossier, manifest))
    text = b"DSSEv1 %d %s %d %s" % (len(_PAYLOAD), _PAYLOAD.encode(), len(payload), payload)
    return {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": _PAYLOAD,
        "signatures": [
            {"keyid": f"{key.name}+{key.identity().hex()}", "sig": base64.b64encode(signature).decode()}
            for key, signature in signer.sign(dossier.point.origin, text)
        ],
    }


def statement(dossier: Dossier, manifest: bytes) -> dict[str, Any]:
    """What is signed. It names people only as leaves do."""
    point = dossier.point
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [*_subjects(dossier), {"name": "MANIFEST", "digest": _sha256(manifest)}],
        "predicateType": PREDICATE,
        "predicate": {
            "promotion": dossier.id,
            "model": dossier.model,
            "version": dossier.version,
            "environment": dossier.environment,
            "state": dossier.state,
            "policy": dossier.policy_digest,
            "release": dossier.release_digest,
            "decisions": decisions(dossier),
            "trail": {"origin": point.origin, "size": point.size, "root": point.root.hex()},
        },
    }


def _subjects(dossier: Dossier) -> list[dict[str, Any]]:
    """What was promoted, as far as it was made: the model's tree (the hash of its list of files), the converted model,
    its configuration, and the image, or the tree that is served without one."""
    seen = dossier.evidence
    build = seen.get("BUILD", {})
    digests = {
        "model": seen.get("SNAPSHOT", {}).get("tree"),
        "onnx": seen.get("CONVERT", {}).get("onnx"),
        "config": build.get("config"),
        "image": build.get("image") or build.get("repository"),
    }
    found = {name: _HEX.fullmatch(digest) for name, digest in digests.items() if isinstance(digest, str)}
    return [{"name": name, "digest": {"sha256": digest[1]}} for name, digest in found.items() if digest]


def _sha256(data: bytes) -> dict[str, str]:
    return {"sha256": hashlib.sha256(data).hexdigest()}
