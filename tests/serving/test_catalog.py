import json

import numpy as np
import pandas as pd

from multistage.serving.catalog import Context, read_catalog


def test_positions_of_products_and_of_strangers(tmp_path):
    pd.DataFrame(
        {
            "product_id": [30, 10, 20],
            "price": np.float32([3, 1, 2]),
            "name": ["c", "a", "b"],
            "available": [True, False, True],
            "category": ["x", "y", "x"],
        }
    ).to_parquet(tmp_path / "item_features.parquet")
    catalog = read_catalog(tmp_path)
    assert catalog.positions(np.array([[10, 30], [5, 99], [-1, 20]])).tolist() == [
        [0, 2],
        [-1, -1],
        [-1, 1],
    ]
    assert catalog.features["price"].tolist() == [1, 2, 3]
    assert list(catalog.features) == ["price"]  # text is no feature
    assert catalog.available.tolist() == [False, True, True]
    assert catalog.category[1] == catalog.category[2] != catalog.category[0]


def test_context_is_the_hour_and_the_weekday_in_utc(tmp_path):
    codes = {
        "hour": {str(hour): 100 + hour for hour in range(1, 24)},  # training had no midnight
        "weekday": {str(day): 200 + day for day in range(7)},
    }
    (tmp_path / "context.json").write_text(json.dumps(codes))
    times = pd.date_range("2019-12-30", periods=500, freq="101min", tz="UTC")
    seconds = times.astype("int64").to_numpy() / 1e9
    encoded = Context.read(tmp_path).encode(seconds)
    hours = times.hour.to_numpy()
    assert np.array_equal(encoded["hour"], np.where(hours == 0, 2, 100 + hours))
    assert np.array_equal(encoded["weekday"], 200 + times.weekday.to_numpy())
