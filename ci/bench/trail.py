"""The audit trail: leaves appended, proofs given, and a million leaves verified without the service."""

import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from app.adapters.audit_keys import KeyFiles
from app.db import audit
from app.db.session import Database
from app.domain.audit import leaf_data
from app.domain.merkle import Frontier, leaf_hash
from app.domain.notes import Checkpoint
from app.parts import Core
from app.services import trail
from app.verifier.one_file import NAME, one_file
from ci.bench.databases import POSTGRES, SQLITE, Fresh, missing
from ci.bench.figures import Group, in_turns, number, percentile, ratio, spread
from tests.fakes import FakePolicies, FakeQueue, FakeRegistry

BATCH, BATCHES, SINGLE = 100, 30, 200
BATCHED_AIM, LEAVES, VERIFY_AIM_S = 1000, 1_000_000, 20
PROOFS = 300
ORIGIN = "headgate/bench"


class Log:
    """One database with a trail to append to."""

    def __init__(self, url: str, folder: Path) -> None:
        self.database = Database(url)
        signer = KeyFiles([folder / "audit.key"], make=True)
        self.core = Core(self.database, FakeRegistry(), FakePolicies(), FakeQueue(), "http://headgate", signer)

    def rate(self, batch: int, batches: int) -> float:
        """Leaves a second, `batch` of them in each transaction."""
        begun = time.perf_counter()
        for _ in range(batches):
            with self.database.begin() as session:
                for _ in range(batch):
                    audit.append(session, "promotion.transition", _body(1))
        return batch * batches / (time.perf_counter() - begun)

    def proofs(self, count: int) -> list[float]:
        """Milliseconds that each of so many proofs takes, the checkpoint's signature included."""
        size, taken = trail.checkpoint(self.core)["leaves"], []
        for at in range(count):
            seq = at * 7919 % size + 1  # all over the trail
            begun = time.perf_counter()
            trail.proof(self.core, seq)
            taken.append((time.perf_counter() - begun) * 1000)
        return taken


def run(folder: Path, kinds: Mapping[str, Fresh], rounds: int, leaves: int) -> Group:
    """Both databases in turns; then one export for the verifier."""
    logs = {name: Log(fresh("trail"), folder) for name, fresh in kinds.items()}
    try:
        rows, figures = [], dict[str, Any]()
        for label, batch, batches in (
            (f"leaves/s, {BATCH} a transaction", BATCH, BATCHES),
            ("leaves/s, one each", 1, SINGLE),
        ):
            sides = {name: partial(log.rate, batch, batches) for name, log in logs.items()}
            found = in_turns(sides, rounds)
            rows.append([label, *(spread(found[name]) for name in logs), _compared(found)])
            figures[label] = found
        proofs = {name: log.proofs(PROOFS) for name, log in logs.items()}
        told = [f"{number(percentile(p, 0.5))} / {number(percentile(p, 0.99))}" for p in proofs.values()]
        rows.append(["a proof, p50 / p99 ms", *told, _compared(proofs)])
        figures["proofs"] = proofs
    finally:
        for log in logs.values():
            log.database.close()
    seconds, size = _verified(folder, leaves)
    rows.append([f"verify {leaves:,} leaves offline, s", f"{seconds:.1f}", *[""] * len(logs)])
    notes = [
        f"Aims: {BATCHED_AIM:,} leaves/s, {BATCH} a transaction; {LEAVES:,} leaves verified in {VERIFY_AIM_S} s.",
        f"Rounds: {rounds}; median and, in brackets, least and greatest. Proofs are of leaves all over the trail.",
        f"The verifier is a process of its own and reads an export of {size / 2**20:.0f} MiB; start included.",
        *missing(kinds),
    ]
    return Group("trail", "The audit trail", ["what", *logs, f"{POSTGRES} / {SQLITE}"], rows, notes, figures)


def _compared(found: Mapping[str, Sequence[float]]) -> str:
    """PostgreSQL's beside SQLite's, where both are here."""
    return number(ratio(found[POSTGRES], found[SQLITE])) if POSTGRES in found else ""


def _body(seq: int) -> dict[str, Any]:
    """What most leaves of a busy trail are like."""
    digest = f"sha256:{seq:064x}"
    named = {"promotion": seq, "model": "airbnb-price", "version": "7", "environment": "production"}
    return {**named, "from": "GATES", "to": "BUILD", "reason": "", "evidence": digest, "digest": None, "policy": digest}


def _verified(folder: Path, leaves: int) -> tuple[float, int]:
    """Seconds that the verifier takes for so many leaves, and the export's bytes."""
    signer, tree = KeyFiles([folder / "audit.key"], make=True), Frontier()
    lines, export = folder / "leaves.txt", folder / "trail.txt"
    with lines.open("wb") as out:
        for seq in range(1, leaves + 1):
            data = leaf_data(seq, "2026-01-01T00:00:00+00:00", "promotion.transition", _body(seq))
            digest = leaf_hash(data)
            tree.add(digest)
            out.write(digest.hex().encode() + b" " + data + b"\n")
    note = trail.note_of(signer, Checkpoint(ORIGIN, tree.size, tree.root()))
    with export.open("wb") as whole, lines.open("rb") as out:
        whole.write(f"{trail.FORMAT} {ORIGIN} {leaves} 1\n{note}\n".encode())
        shutil.copyfileobj(out, whole)
    key = signer.keys(ORIGIN)[0].text()
    verifier = folder / NAME
    verifier.write_bytes(one_file())
    begun = time.perf_counter()
    subprocess.run(
        [sys.executable, "-I", str(verifier), "export", str(export), "--key", key],
        check=True,
        capture_output=True,
    )
    return time.perf_counter() - begun, export.stat().st_size
