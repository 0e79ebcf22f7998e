"""The bill of materials: a CycloneDX 1.6 ML-BOM of the model, what became of it, its judging rows and its packages.

https://cyclonedx.org/docs/1.6/json/. Everything in it is read from the evidence; its number and time are the
promotion's own, so that it is the same each time.
"""

import re
import uuid
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

from packaging.utils import canonicalize_name

from app.services.evidence.dossier import Dossier

_HEX = re.compile(r"sha256:([0-9a-f]{64})")
Component = dict[str, Any]


def bom(dossier: Dossier) -> dict[str, Any]:
    """The document, as JSON values."""
    last = dossier.leaves[-1]
    name = f"{dossier.point.origin}/promotions/{dossier.id}/leaves/{last.seq}"
    libraries = [*_libraries(dossier.evidence.get("CONVERT", {}))]
    parts = [*_made(dossier), *_rows(dossier)]
    made = [part["bom-ref"] for part in parts if part["bom-ref"] != "judging-rows"]
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, name)}",
        "version": 1,
        "metadata": {
            "timestamp": last.at,
            "tools": {"components": [{"type": "application", "name": "headgate"}]},
            "component": _model(dossier),
        },
        "components": [*parts, *libraries],
        "dependencies": [
            {"ref": "model", "dependsOn": sorted(library["bom-ref"] for library in libraries)},
            *({"ref": ref, "dependsOn": ["model"]} for ref in made),
        ],
    }


def _model(dossier: Dossier) -> Component:
    tree = dossier.evidence.get("SNAPSHOT", {}).get("tree")
    properties = {
        "headgate:environment": dossier.environment,
        "headgate:policy": dossier.policy_digest,
        "headgate:release": dossier.release_digest,
        "headgate:state": dossier.state,
    }
    return {
        "type": "machine-learning-model",
        "bom-ref": "model",
        "name": dossier.model,
        "version": dossier.version,
        "description": "The hash is that of model-files.json, which lists each file with its own.",
        **_hashes(tree),
        "modelCard": _card(dossier),
        "properties": _properties(properties),
    }


def _card(dossier: Dossier) -> dict[str, Any]:
    """What the evidence knows of the model, and nothing that it does not."""
    converted, judged = dossier.evidence.get("CONVERT", {}), dossier.evidence.get("GATES", {})
    measured = judged.get("measurements") or {}
    data = dossier.policy.get("data")
    parameters = {
        **({"approach": {"type": "supervised"}} if data else {}),
        **({"architectureFamily": str(converted["flavor"])} if converted.get("flavor") else {}),
        **({"datasets": [{"ref": "judging-rows"}]} if [*_rows(dossier)] else {}),
        **{side: [*_tensors(converted.get(side, ()))] for side in ("inputs", "outputs") if converted.get(side)},
    }
    return {
        "modelParameters": parameters,
        "quantitativeAnalysis": {"performanceMetrics": [*_metrics(measured)]},
        "considerations": {
            "useCases": [f"{dossier.environment}, as far as the policy in policy.json asks"],
            "technicalLimitations": [
                f"Measured on {measured.get('rows', 0)} rows; nothing is known of others.",
                *(f"{result['gate']}: {result['verdict']}: {result['reason']}" for result in _results(dossier)),
            ],
        },
    }


def _results(dossier: Dossier) -> Iterator[Mapping[str, Any]]:
    for state in ("GATES", "PROVE"):
        yield from dossier.evidence.get(state, {}).get("results", ())


def _metrics(measured: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    for name, value in sorted((measured.get("metrics") or {}).items()):
        yield {"type": name, "value": f"{value!r}", "slice": "all judging rows"}
    for batch, value in sorted((measured.get("latency_ms") or {}).items()):
        yield {"type": "latency p99, ms, in ONNX Runtime", "value": f"{value!r}", "slice": f"calls of {batch} rows"}
    for slices in measured.get("slices") or ():
        for group in slices["groups"]:
            key = ", ".join(f"{column}={value}" for column, value in zip(slices["by"], group["key"], strict=False))
            for name, value in sorted(group["metrics"].items()):
                yield {"type": name, "value": f"{value!r}", "slice": f"{key} ({group['rows']} rows)"}


def _tensors(tensors: Any) -> Iterator[dict[str, str]]:
    for tensor in tensors:
        yield {"format": f"{tensor['name']}: {tensor['datatype']} {list(tensor['shape'])}"}


def _made(dossier: Dossier) -> Iterator[Component]:
    """What Headgate made of the model."""
    seen, build = dossier.evidence, dossier.evidence.get("BUILD", {})
    onnx = seen.get("CONVERT", {}).get("onnx")
    if onnx is not None:
        name = f"{dossier.model}.onnx"
        more = {"mime-type": "application/octet-stream", "version": dossier.version}
        yield {"type": "machine-learning-model", "bom-ref": "onnx", "name": name, **more, **_hashes(onnx)}
    if "config" in build:
        yield {"type": "file", "bom-ref": "config", "name": "config.pbtxt", **_hashes(build["config"])}
        tree = "The hash is that of served-files.json, which lists each file with its own."
        kept = {"name": "model repository", "description": tree, **_hashes(build.get("repository"))}
        yield {"type": "file", "bom-ref": "repository", **kept}
        if build.get("image"):
            image = {"name": str(build["name"]), "version": str(build["image"])}
            yield {"type": "container", "bom-ref": "image", **image, **_hashes(build["image"])}


def _rows(dossier: Dossier) -> Iterator[Component]:
    """The judging rows that were copied at intake; none where the model's own input example served."""
    taken = dossier.evidence.get("SNAPSHOT", {})
    if taken.get("data"):
        source = {f"headgate:{key}": value for key, value in (taken.get("data_from") or {}).items()}
        rows = {"type": "data", "bom-ref": "judging-rows", "name": "judging rows", **_hashes(taken["data"])}
        yield {**rows, "data": [{"type": "dataset", "name": "judging rows"}], "properties": _properties(source)}


def _libraries(converted: Mapping[str, Any]) -> Iterator[Component]:
    """The packages that loaded and converted the model."""
    loaded = converted.get("environment") or {}
    whose = "of its own" if loaded.get("own") else "Headgate's own"
    for name, version in sorted((loaded.get("packages") or {}).items()):
        purl = f"pkg:pypi/{quote(canonicalize_name(name))}@{quote(str(version))}"
        told = _properties({"headgate:environment": whose, "headgate:lock": loaded.get("digest")})
        yield {
            "type": "library",
            "bom-ref": purl,
            "name": name,
            "version": str(version),
            "purl": purl,
            "properties": told,
        }


def _hashes(digest: Any) -> dict[str, Any]:
    found = _HEX.fullmatch(digest) if isinstance(digest, str) else None
    return {"hashes": [{"alg": "SHA-256", "content": found[1]}]} if found else {}


def _properties(values: Mapping[str, Any]) -> list[dict[str, str]]:
    return [{"name": name, "value": str(value)} for name, value in sorted(values.items()) if value is not None]
