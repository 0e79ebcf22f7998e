"""Copying the judging rows into the store, from wherever the policy says that they lie."""

from pathlib import Path
from typing import Any

from app.domain.errors import Fault
from app.domain.places import CHAMPION, InBucket, LocalFile, Logged, place_of
from app.domain.policy import Data
from app.domain.promotion import State
from app.ports import Dataset
from workers.context import Context


def copy_rows(context: Context, data: Data) -> dict[str, Any]:
    """What is recorded of them: `data`, the digest of the file, and `data_from`, where it lay and what MLflow says.

    Raises:
        Fault: they are missing, or are not what the policy's digest says.
        Transient: what keeps them did not answer.
    """
    try:
        place = place_of(data.uri)
    except ValueError as error:
        raise Fault(f"data.uri: {error}.", "Mend the policy, then `headgate retry`.") from error
    source: dict[str, Any] = {"uri": data.uri}
    with context.scratch("rows") as folder:
        match place:
            case LocalFile(path):
                file = path
                if not path.is_file():
                    raise Fault(f"The judging rows {data.uri} are not there.", "Put them where data.uri says.")
            case InBucket(uri):
                file = _fetched(context, uri, folder)
            case Logged():
                found = _logged(context, place)
                source |= {"file": found.uri, "dataset": found.name, "mlflow_digest": found.digest}
                file = _fetched(context, found.uri, folder)
        digest = context.plant.store.put_file(file)
    if data.digest is not None and digest != data.digest:
        raise Fault(f"The judging rows {data.uri} are {digest}, and the policy asks for {data.digest}.", _ANOTHER_FILE)
    return {"data": digest, "data_from": source}


_ANOTHER_FILE = "Bring the file back, or change data.digest in the policy, then `headgate retry`."


def _fetched(context: Context, uri: str, folder: Path) -> Path:
    file = folder / "rows"
    if uri.startswith("s3:"):
        context.plant.buckets.fetch(uri, file)
    else:
        context.registry.copy_dataset(uri, file)
    return file


def _logged(context: Context, place: Logged) -> Dataset:
    run = place.run
    if run == CHAMPION:
        live = context.champion[State.SNAPSHOT.value]["run_id"] if context.champion is not None else None
        if live is None:
            why = "nothing is live yet" if context.champion is None else "the live version came from no run"
            raise Fault(f"data.uri asks for the champion's dataset, and {why}.", "Name a run: dataset:<run id>/<name>.")
        run = str(live)
    return context.registry.dataset(run, place.name)
