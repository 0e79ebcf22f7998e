"""The Airbnb listings of the example: read them or make rows of the same schema, clean them, split them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

TEXT = ["neighbourhood_group", "room_type"]
NUMBERS = [
    "latitude",
    "longitude",
    "minimum_nights",
    "number_of_reviews",
    "reviews_per_month",
    "calculated_host_listings_count",
    "availability_365",
]
FEATURES = [*TEXT, *NUMBERS]
LABEL = "log_price"
NEW_BOROUGH = "Hoboken"
"""A neighbourhood group that no row of the data has, as live traffic may bring one."""

# Borough: (share, latitude and its spread, longitude and its spread, how its log-prices lie against Brooklyn's).
_BOROUGHS = {
    "Bronx": (0.03, 40.848, 0.027, -73.883, 0.034, -0.25),
    "Brooklyn": (0.41, 40.682, 0.028, -73.950, 0.027, 0.0),
    "Manhattan": (0.41, 40.766, 0.039, -73.974, 0.023, 0.32),
    "Queens": (0.14, 40.729, 0.042, -73.865, 0.058, -0.13),
    "Staten Island": (0.01, 40.612, 0.031, -74.104, 0.035, -0.25),
}
_ROOMS = {"Entire home/apt": (0.52, 5.03), "Private room": (0.45, 4.22), "Shared room": (0.03, 3.65)}
_HOST_LISTINGS, _HOST_SHARES = (1, 2, 3, 5, 12, 96, 327), (0.62, 0.16, 0.08, 0.07, 0.04, 0.02, 0.01)


def load(file: Path | None, rows: int = 26_000, seed: int = 7) -> pd.DataFrame:
    """The raw listings of an AB_NYC_2019 CSV file (plain or .gz), or synthetic ones where `file` is None."""
    return synthetic(rows, seed) if file is None else pd.read_csv(file)


def synthetic(rows: int, seed: int) -> pd.DataFrame:
    """Made-up listings with the 16 columns of AB_NYC_2019; the same arguments give the same rows.

    Prices follow borough, room type and the distance to the centre, plus noise; the shares are those of the real data.
    """
    rng = np.random.default_rng(seed)
    borough = _pick(rng, list(_BOROUGHS), [b[0] for b in _BOROUGHS.values()], rows)
    room = _pick(rng, list(_ROOMS), [share for share, _ in _ROOMS.values()], rows)
    place = np.array([_BOROUGHS[name][1:] for name in borough])
    latitude = rng.normal(place[:, 0], place[:, 1]).round(5)
    longitude = rng.normal(place[:, 2], place[:, 3]).round(5)
    available = rng.integers(1, 366, rows)
    nights = rng.geometric(0.25, rows)
    centre = np.hypot(latitude - 40.75, longitude + 73.985)
    log_price = (
        np.array([_ROOMS[name][1] for name in room])
        + place[:, 4]
        - 3.0 * centre
        + 0.25 * np.cos(40 * centre)
        + 0.0006 * available
        - 0.02 * np.minimum(nights, 20)
        + rng.normal(0, 0.38, rows)
    )
    return pd.DataFrame(
        {
            "id": np.arange(1, rows + 1),
            "name": "",
            "host_id": rng.integers(1, 10**8, rows),
            "host_name": "",
            "neighbourhood_group": borough,
            "neighbourhood": borough,
            "latitude": latitude,
            "longitude": longitude,
            "room_type": room,
            "price": np.exp(log_price).round().astype(int),
            "minimum_nights": nights,
            "number_of_reviews": rng.geometric(0.025, rows),
            "last_review": "19-10-2018",
            "reviews_per_month": rng.gamma(1.1, 1.6, rows).round(2) + 0.01,
            "calculated_host_listings_count": _pick(rng, list(_HOST_LISTINGS), list(_HOST_SHARES), rows),
            "availability_365": available,
        }
    )


def _pick(rng: np.random.Generator, values: list[Any], shares: list[float], rows: int) -> np.ndarray[Any, Any]:
    return np.asarray(values, dtype=object)[rng.choice(len(values), rows, p=shares)]


def clean(raw: pd.DataFrame) -> pd.DataFrame:
    """The features and the label `log_price` of all listings that have a price.

    Numbers become float32, the type in which Triton takes them: so the model is trained on what it will be asked with.
    """
    priced = raw[raw["price"] > 0]
    table = priced[TEXT].astype(str)
    table[NUMBERS] = priced[NUMBERS].fillna(0).astype(np.float32)
    table[LABEL] = np.log(priced["price"].to_numpy(dtype=np.float64))
    return table.reset_index(drop=True)


def split(table: pd.DataFrame, holdout: float = 0.2, seed: int = 7) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Training rows and the holdout on which every version is judged; the split depends on nothing but the seed."""
    order = np.random.default_rng(seed).permutation(len(table))
    cut = round(len(table) * holdout)
    return table.iloc[np.sort(order[cut:])], table.iloc[np.sort(order[:cut])]


def live_request(rows: pd.DataFrame, borough: str | None = None) -> dict[str, Any]:
    """A V2 inference body for rows of features, one input of shape [n, 1] per column.

    `borough` puts all rows into that neighbourhood group, e.g. NEW_BOROUGH.
    """
    shape = [len(rows), 1]
    inputs: list[dict[str, Any]] = []
    for name in FEATURES:
        values: Sequence[Any] = rows[name].tolist()
        if name == "neighbourhood_group" and borough is not None:
            values = [borough] * len(rows)
        inputs.append({"name": name, "shape": shape, "datatype": "BYTES" if name in TEXT else "FP32", "data": values})
    return {"inputs": inputs}
