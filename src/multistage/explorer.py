"""Explain one answer: what each of the four stages did for one user."""

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from multistage.serving.request import FallbackStatus

if TYPE_CHECKING:
    from multistage.datasets.contract import Truth
    from multistage.serving.graph import Recommender

KEPT, SEEN, UNAVAILABLE, SPARE, FILLED = "kept", "seen", "not available", "spare", "filled in"
SHOWN = 40  # rows of the widget's table


def explain(
    recommender: "Recommender",
    user_id: int,
    time: float,
    k: int = 10,
    truth: "Truth | None" = None,
) -> tuple[FallbackStatus, pd.DataFrame]:
    """Return the user's fallback status, and one row per product that any stage handled.

    Columns: ``product_id``; ``retrieved``, the place in retrieval, from 1, missing if it was filled
    in later; ``filter``, the result of the filter; ``score``; ``place``, from 1, among the products
    offered; with ``truth``, ``true_rank``: the product's rank, from 1, in the whole catalogue by
    this user's true purchase probability. Ordered by place, then by score, then as retrieved.
    """
    recommender.run(np.array([user_id]), np.array([float(time)]), np.array([k], "int32"))
    table = {step.operator: step.table for step in recommender.runtime.steps}
    retrieved = table["RetrieveCandidates"]["candidate_ids"].values[0]
    scored = table["ScoreCandidates"]
    kept, scores = scored["candidate_ids"].values[0], scored["candidate_scores"].values[0]
    last = recommender.runtime.steps[-1].table
    offered, status = (
        last["ordered_ids"].values[0],
        FallbackStatus(int(last["fallback_status"].values[0])),
    )

    ids = pd.unique(np.concatenate([retrieved[retrieved >= 0], kept[kept >= 0]]))
    rows = pd.DataFrame({"product_id": ids})
    rows["retrieved"] = rows["product_id"].map(_places(retrieved)).astype("Int64")
    rows["filter"] = _decisions(rows, kept, scored["seen"].values, retrieved)
    rows["score"] = rows["product_id"].map(dict(zip(kept, scores, strict=True)))
    rows["place"] = rows["product_id"].map(_places(offered)).astype("Int64")
    if truth is not None and status == FallbackStatus.PERSONAL:
        intensity = truth.purchase_intensity(np.array([user_id]))[0]
        rank = pd.Series(intensity, index=truth.product_ids).rank(ascending=False, method="first")
        rows["true_rank"] = rows["product_id"].map(rank).astype("Int64")
    return status, rows.sort_values(
        ["place", "score", "retrieved"], ascending=[True, False, True], ignore_index=True
    )


def _places(ids: np.ndarray) -> dict[int, int]:
    return {product: place for place, product in enumerate(ids.tolist(), 1) if product >= 0}


def _decisions(
    rows: pd.DataFrame, kept: np.ndarray, seen: np.ndarray, retrieved: np.ndarray
) -> np.ndarray:
    ids = rows["product_id"]
    last_kept = max((place for p, place in _places(retrieved).items() if p in set(kept)), default=0)
    return np.select(
        [
            ids.isin(kept) & rows["retrieved"].notna(),
            ids.isin(kept),
            ids.isin(seen),
            rows["retrieved"].gt(last_kept).fillna(False).to_numpy(bool),
        ],
        [KEPT, FILLED, SEEN, SPARE],
        UNAVAILABLE,
    )


def stage_explorer(
    recommender: "Recommender",
    users: list[int],
    catalog: pd.DataFrame,
    time: float,
    truth: "Truth | None" = None,
) -> Any:
    """Return a widget that shows what each stage did for a selected user.

    Args:
        recommender: answers in this process.
        users: ids to choose from; include one that the feature store does not know.
        catalog: ``product_id`` and columns to describe a product by.
        time: of the request, seconds since 1970.
        truth: of the simulated shop, if known.
    """
    import ipywidgets as widgets

    user = widgets.Dropdown(options=users, description="user")
    k = widgets.IntSlider(value=10, min=1, max=20, description="k")
    page = widgets.HTML()

    def show(_: Any = None) -> None:
        status, rows = explain(recommender, user.value, time, k.value, truth)
        page.value = _page(status, rows, catalog)

    for control in (user, k):
        control.observe(show, names="value")
    show()
    return widgets.VBox([widgets.HBox([user, k]), page])


def _page(status: FallbackStatus, rows: pd.DataFrame, catalog: pd.DataFrame) -> str:
    counts = {
        "retrieved": int(rows["retrieved"].notna().sum()),
        "after the filter": int(rows["filter"].isin([KEPT, FILLED]).sum()),
        "scored": int(rows["score"].notna().sum()),
        "offered": int(rows["place"].notna().sum()),
    }
    widest = max(*counts.values(), 1)
    bars = "".join(
        f"<div style='display:flex;align-items:center;margin:2px 0'>"
        f"<span style='width:9em'>{name}</span>"
        f"<span style='background:#4c78a8;height:0.9em;width:{24 * count / widest:.2f}em'></span>"
        f"<span style='margin-left:0.5em'>{count}</span></div>"
        for name, count in counts.items()
    )
    offered = rows[rows["place"].notna()]
    refused = rows[rows["filter"].isin([SEEN, UNAVAILABLE])]
    rest = rows.drop(index=offered.index.union(refused.index))
    shown = pd.concat([offered, refused.head(10), rest]).head(SHOWN)
    shown = shown.merge(catalog, on="product_id", how="left")
    if shown["score"].notna().any():
        shown["score"] = shown["score"].map("{:.4f}".format, na_action="ignore")
    shown = shown.astype(object).where(shown.notna(), "")  # na_rep leaves a None as it is
    html = shown.to_html(index=False, border=0)
    for cell in ("th", "td"):  # a notebook's own style puts names and values to different sides
        html = html.replace(f"<{cell}>", f"<{cell} style='text-align:left;padding-right:1em'>")
    return f"<p>fallback status: <b>{status.name.lower()}</b></p>{bars}<div>{html}</div>"
