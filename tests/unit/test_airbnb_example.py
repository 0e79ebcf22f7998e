"""The Airbnb example: its data, its requests and its policy."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import examples.airbnb
from app.policy_files import parse
from examples.airbnb import data
from examples.airbnb.models import KINDS, build

REAL_COLUMNS = [
    "id",
    "name",
    "host_id",
    "host_name",
    "neighbourhood_group",
    "neighbourhood",
    "latitude",
    "longitude",
    "room_type",
    "price",
    "minimum_nights",
    "number_of_reviews",
    "last_review",
    "reviews_per_month",
    "calculated_host_listings_count",
    "availability_365",
]


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return data.clean(data.synthetic(3000, seed=1))


def test_synthetic_rows_have_the_real_schema_and_are_the_same_each_time() -> None:
    one, other = data.synthetic(500, seed=1), data.synthetic(500, seed=1)

    assert list(one.columns) == REAL_COLUMNS
    pd.testing.assert_frame_equal(one, other)
    assert not one.equals(data.synthetic(500, seed=2))


@pytest.mark.parametrize("name", ["listings.csv", "listings.csv.gz"])
def test_a_file_is_read_plain_or_packed(tmp_path: Path, name: str) -> None:
    raw = data.synthetic(50, seed=1)
    raw.to_csv(tmp_path / name, index=False)

    pd.testing.assert_frame_equal(data.clean(data.load(tmp_path / name)), data.clean(raw))


def test_cleaning_drops_what_has_no_price_and_keeps_32_bits() -> None:
    raw = data.synthetic(50, seed=1)
    raw.loc[3, "price"] = 0
    raw.loc[4, "reviews_per_month"] = np.nan

    table = data.clean(raw)

    assert len(table) == 49
    assert {str(table[name].dtype) for name in data.NUMBERS} == {"float32"}
    assert table[data.FEATURES].notna().all().all()
    assert table[data.LABEL].iloc[0] == pytest.approx(np.log(raw["price"].iloc[0]))


def test_the_holdout_is_apart_and_the_same_each_time(table: pd.DataFrame) -> None:
    train, holdout = data.split(table)

    assert (len(train), len(holdout)) == (2400, 600)
    assert not set(train.index) & set(holdout.index)
    pd.testing.assert_frame_equal(holdout, data.split(table)[1])


def test_no_row_lies_in_the_new_borough(table: pd.DataFrame) -> None:
    assert data.NEW_BOROUGH not in set(table["neighbourhood_group"])


def test_live_requests_are_v2_bodies(table: pd.DataFrame) -> None:
    body = data.live_request(table.head(3), data.NEW_BOROUGH)

    assert [tensor["name"] for tensor in body["inputs"]] == data.FEATURES
    assert all(tensor["shape"] == [3, 1] and len(tensor["data"]) == 3 for tensor in body["inputs"])
    assert body["inputs"][0] == {
        "name": "neighbourhood_group",
        "shape": [3, 1],
        "datatype": "BYTES",
        "data": [data.NEW_BOROUGH] * 3,
    }
    assert data.live_request(table.head(3))["inputs"][0]["data"] == table["neighbourhood_group"].head(3).tolist()


def test_only_the_strict_model_refuses_a_new_borough(table: pd.DataFrame) -> None:
    asked = table.head(2)[data.FEATURES].assign(neighbourhood_group=data.NEW_BOROUGH)
    for kind in KINDS:
        pipeline = build(kind).fit(table[data.FEATURES], table[data.LABEL])
        if kind == "strict":
            with pytest.raises(ValueError, match="unknown categories"):
                pipeline.predict(asked)
        else:
            assert np.isfinite(pipeline.predict(asked)).all()


def test_the_policy_is_valid_and_judges_the_label_of_the_data() -> None:
    file = Path(examples.airbnb.__file__).with_name("policy.yaml")

    policy = parse(file.read_text())

    assert policy.model == "airbnb-price"
    assert set(policy.environments) == {"staging", "production"}
    for environment in policy.environments.values():
        assert environment.data is not None
        assert environment.data.label == data.LABEL
    assert policy.environments["production"].approvals.required == 1
