"""Where judging rows may lie, as the policy's `data.uri` says it."""

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

CHAMPION = "champion"
_DATASET = re.compile(r"dataset:(champion|[0-9a-f]{32})/(.{1,500})")
_BUCKET = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,62}/.{1,1024}")


@dataclass(frozen=True)
class LocalFile:
    """A file that the workers can read."""

    path: Path


@dataclass(frozen=True)
class InBucket:
    """An object in S3, or in what speaks its protocol."""

    uri: str


@dataclass(frozen=True)
class Logged:
    """A dataset that an MLflow run has logged as its input: the champion's run, or the one that the policy names.
    The candidate's own run is never asked: no model chooses what it is judged on."""

    run: str
    name: str


Place = LocalFile | InBucket | Logged


def place_of(uri: str) -> Place:
    """What the URI names.

    Raises:
        ValueError: no place that Headgate reads from.
    """
    scheme = urlsplit(uri).scheme
    if scheme in ("", "file"):
        return LocalFile(Path(unquote(urlsplit(uri).path)))
    if scheme == "s3" and _BUCKET.fullmatch(uri):
        return InBucket(uri)
    if scheme == "dataset" and (match := _DATASET.fullmatch(uri)):
        return Logged(match[1], match[2])
    if scheme in ("s3", "dataset"):
        raise ValueError("write s3://<bucket>/<key>, or dataset:champion/<name>, or dataset:<run id>/<name>")
    raise ValueError(f"the scheme {scheme!r} is unknown: name a file, s3://<bucket>/<key> or dataset:<run id>/<name>")
