"""The simulated shop: simple baselines and the oracle as upper bound, on its test month.

``python benchmarks/shop.py --profile laptop`` prints them and writes ``build/bench/shop.json``.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler, TargetEncoder

from multistage.datasets import Data, load
from multistage.evaluation import Holdout, ndcg_at_k, recall_at_k
from multistage.evaluation.baselines import als, ease, popularity
from multistage.workspace import Workspace

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profile", default="laptop")
    workspace = Workspace.open("store", parser.parse_args().profile, ROOT)
    data = load(workspace)
    result = {"train": len(data.train), **purchase_auc(data), **rankings(data)}
    output = ROOT / "build" / "bench" / "shop.json"
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(result, indent=1))
    for name, value in result.items():
        print(f"{name:32} {value:10.4g}")


def purchase_auc(data: Data) -> dict[str, float]:
    """AUC of the oracle, and of logistic regression with target-encoded products."""
    test = data.test
    truth = data.truth.purchase_probability(test["user_id"], test["product_id"], test["timestamp"])
    low = ["cat_0", "cat_1", "cat_2", "brand", "hour", "weekday"]
    model = make_pipeline(
        ColumnTransformer(
            [
                ("one_hot", OneHotEncoder(handle_unknown="ignore"), low),
                ("product", make_pipeline(TargetEncoder(), StandardScaler()), ["product_id"]),
                ("price", StandardScaler(), ["log_price"]),
            ]
        ),
        LogisticRegression(max_iter=500),
    )
    model.fit(_features(data.train), data.train["target"])
    linear = model.predict_proba(_features(test))[:, 1]
    return {
        "auc_oracle": roc_auc_score(test["target"], truth),
        "auc_logistic_regression": roc_auc_score(test["target"], linear),
    }


def _features(rows: pd.DataFrame) -> pd.DataFrame:
    text = rows[["cat_0", "cat_1", "cat_2", "brand"]].fillna("")
    return text.assign(
        hour=rows["timestamp"].dt.hour,
        weekday=rows["timestamp"].dt.weekday,
        product_id=rows["product_id"],
        log_price=np.log(rows["price"]),
    )


def rankings(data: Data) -> dict[str, float]:
    """NDCG@10 and recall@100 over the catalogue."""
    holdout, result = Holdout.from_data(data), {}
    scores = {
        "oracle": data.truth.purchase_intensity(holdout.user_ids),
        "popularity": popularity(holdout.purchases, holdout.history),
        "ease": ease(holdout.purchases, holdout.history),
        "als": als(holdout.purchases, holdout.history),
    }
    for name, score in scores.items():
        top = holdout.top_k(np.asarray(score), 100)
        result[f"ndcg_at_10_{name}"] = float(np.mean(ndcg_at_k(top, holdout.relevant, 10)))
        result[f"recall_at_100_{name}"] = float(np.mean(recall_at_k(top, holdout.relevant, 100)))
    return result


if __name__ == "__main__":
    main()
