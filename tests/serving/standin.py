"""A small stand-in for what section 4 exports: real Merlin models, toy data."""

import json

import numpy as np
import pandas as pd
from scipy.sparse import random as random_sparse

from multistage.datasets.contract import Data
from multistage.features import EASE
from multistage.workspace import Workspace

PRODUCER = "04-retrieval-and-ranking"
BRANDS, CATEGORIES = 6, 5
USER_COLUMNS = ("user", "user_activity", "user_price")
QUERY_DIM = 8
SCORE_COLUMNS = ["tower_score", "bought_score", "recent_rank", "popular_score"]


def write_exports(
    workspace: Workspace,
    users: int = 40,
    products: int = 60,
    seed: int = 3,
    dim: int = QUERY_DIM,
    first_product: int = 10_000_000_000,
    data: Data | None = None,
) -> None:
    """Write every ``export/*`` artifact of section 4 for a toy shop.

    User ids are 1000, 1007, ...; product ids start beyond 32 bits, so that a cast would show.
    The first product is not available. With ``data``, its users, products and training rows are
    taken instead, and every other number is still a toy.
    """
    rng = np.random.default_rng(seed)
    if data is not None:
        users, products = len(data.users), len(data.catalog)
    user_table = _users(rng, users, products, first_product)
    item_table = _items(rng, products, first_product)
    if data is not None:
        item_table["product_id"] = data.catalog["product_id"].to_numpy("int64")
        user_table["user_id"] = data.users["user_id"].to_numpy("int64")
        bought = data.train.groupby("user_id")["product_id"].agg(list)
        user_table["seen"] = bought.loc[user_table["user_id"]].to_list()
        user_table["bought"] = user_table["seen"]
    query_tower, embeddings, ranker = _train(rng, user_table, item_table, dim)

    with workspace.write("export/query_tower", PRODUCER) as folder:
        query_tower.save(str(folder / "model"))
        _flatten(folder)
    with workspace.write("export/ranker", PRODUCER) as folder:
        ranker.save(str(folder / "model"))
        _flatten(folder)
    with workspace.write("export/item_embeddings", PRODUCER) as folder:
        pd.DataFrame(
            {"product_id": item_table["product_id"], "embedding": list(embeddings)}
        ).to_parquet(folder / "item_embeddings.parquet", index=False)
    with workspace.write("export/index", PRODUCER) as folder:
        write_index(folder / "index.faiss", embeddings, item_table["product_id"].to_numpy())
    with workspace.write("export/ease", PRODUCER) as folder:
        for name in ("bought", "touched"):
            weights = random_sparse(products, products, 0.2, "csr", "float32", rng)
            EASE(weights).save(folder / f"{name}.npz")
    with workspace.write("export/user_features", PRODUCER) as folder:
        user_table.to_parquet(folder / "user_features.parquet", index=False)
    with workspace.write("export/item_features", PRODUCER) as folder:
        item_table.to_parquet(folder / "item_features.parquet", index=False)
    with workspace.write("export/popularity", PRODUCER) as folder:
        counts = pd.Series(np.concatenate(user_table["seen"].to_list())).value_counts()
        table = item_table[["product_id"]].copy()
        table["purchases"] = table["product_id"].map(counts).fillna(0).astype("int64")
        table.sort_values("purchases", ascending=False, kind="stable").to_parquet(
            folder / "popularity.parquet", index=False
        )
    with workspace.write("export/context", PRODUCER) as folder:
        context = {
            "hour": {str(hour): hour + 3 for hour in range(24)},
            "weekday": {str(day): day + 3 for day in range(7)},
            "unknown_user": {"user": 2, "user_activity": 0.0, "user_price": 0.0},
        }
        (folder / "context.json").write_text(json.dumps(context))


def write_index(path, embeddings, product_ids) -> None:
    """Write an exact inner-product index whose ids are the raw product ids."""
    import faiss

    index = faiss.IndexIDMap2(faiss.IndexFlatIP(embeddings.shape[1]))
    index.add_with_ids(np.ascontiguousarray(embeddings, "float32"), product_ids)
    faiss.write_index(index, str(path))


def _users(rng, users, products, base) -> pd.DataFrame:
    seen = [
        np.sort(rng.choice(products, size=rng.integers(1, 9), replace=False)) * 10 + base
        for _ in range(users)
    ]
    return pd.DataFrame(
        {
            "user_id": 1000 + 7 * np.arange(users, dtype="int64"),
            "user": np.arange(users, dtype="int64") + 3,
            "user_activity": rng.normal(size=users).astype("float32"),
            "user_price": rng.normal(size=users).astype("float32"),
            "event_timestamp": pd.to_datetime("2020-03-01", utc=True)
            + pd.to_timedelta(rng.integers(0, 86_400, users), unit="s"),
            "seen": seen,
            "bought": [row[::2] for row in seen],
        }
    )


def _items(rng, products, base) -> pd.DataFrame:
    category = rng.integers(0, CATEGORIES, products)
    return pd.DataFrame(
        {
            "product_id": base + 10 * np.arange(products, dtype="int64"),
            "product": np.arange(products, dtype="int64") + 3,
            "brand": rng.integers(3, BRANDS + 3, products),
            "cat_0": category + 3,
            "price": rng.normal(size=products).astype("float32"),
            "product_te": rng.uniform(size=products).astype("float32"),
            "available": np.arange(products) > 0,
            "category": [f"category-{code}" for code in category],
        }
    )


def _train(rng, user_table, item_table, dim):
    import merlin.models.tf as mm
    import tensorflow as tf
    from merlin.io import Dataset
    from merlin.schema import ColumnSchema, Schema, Tags

    tf.keras.utils.set_random_seed(int(rng.integers(1 << 30)))
    rows = 64
    users = user_table.iloc[rng.integers(0, len(user_table), rows)].reset_index(drop=True)
    items = item_table.iloc[rng.integers(0, len(item_table), rows)].reset_index(drop=True)
    frame = pd.concat(
        [
            users[list(USER_COLUMNS)],
            items[["product", "brand", "cat_0", "price", "product_te"]],
            pd.DataFrame({"hour": rng.integers(3, 27, rows), "weekday": rng.integers(3, 10, rows)}),
            pd.DataFrame(
                rng.normal(size=(rows, len(SCORE_COLUMNS))).astype("float32"), columns=SCORE_COLUMNS
            ),
        ],
        axis=1,
    )
    frame["target"] = rng.integers(0, 2, rows).astype("float32")

    def category(name, size, tags):
        domain = {"domain": {"min": 0, "max": size + 3, "name": name}}
        return ColumnSchema(name, dtype="int64", tags=[Tags.CATEGORICAL, *tags], properties=domain)

    def number(name, tags):
        return ColumnSchema(name, dtype="float32", tags=[Tags.CONTINUOUS, *tags])

    user_schema = [
        category("user", len(user_table), [Tags.USER, Tags.USER_ID]),
        number("user_activity", [Tags.USER]),
        number("user_price", [Tags.USER]),
    ]
    item_schema = [
        category("product", len(item_table), [Tags.ITEM, Tags.ITEM_ID]),
        category("brand", BRANDS, [Tags.ITEM]),
        category("cat_0", CATEGORIES, [Tags.ITEM]),
        number("price", [Tags.ITEM]),
        number("product_te", [Tags.ITEM]),
    ]
    context = [category("hour", 24, []), category("weekday", 7, [])]
    context += [number(name, []) for name in SCORE_COLUMNS]
    target = ColumnSchema("target", dtype="float32", tags=[Tags.BINARY_CLASSIFICATION, Tags.TARGET])

    retrieval_schema = Schema([*user_schema, *item_schema])
    query = mm.Encoder(Schema(user_schema), mm.MLPBlock([dim], no_activation_last_layer=True))
    candidate = mm.Encoder(Schema(item_schema), mm.MLPBlock([dim], no_activation_last_layer=True))
    two_tower = mm.TwoTowerModelV2(query, candidate)
    two_tower.compile(optimizer="adam", run_eagerly=False)
    data = Dataset(frame[retrieval_schema.column_names], schema=retrieval_schema)
    two_tower.fit(data, batch_size=32, epochs=1, verbose=0)

    ranking_schema = Schema([*user_schema, *item_schema, *context, target])
    ranker = mm.DLRMModel(
        ranking_schema,
        embedding_dim=4,
        bottom_block=mm.MLPBlock([8, 4]),
        top_block=mm.MLPBlock([8]),
        prediction_tasks=mm.BinaryOutput("target"),
    )
    ranker.compile(optimizer="adam")
    ranker.fit(Dataset(frame, schema=ranking_schema), batch_size=32, epochs=1, verbose=0)

    item_inputs = {
        column.name: tf.constant(item_table[[column.name]].to_numpy(column.dtype.to_numpy))
        for column in item_schema
    }
    embeddings = candidate(item_inputs).numpy()
    return query, embeddings, ranker


def _flatten(folder) -> None:
    for file in (folder / "model").iterdir():
        file.rename(folder / file.name)
    (folder / "model").rmdir()
