"""Judging recommenders: metrics, the held-out task, baselines, and where a pipeline loses."""

from multistage.evaluation.holdout import Holdout
from multistage.evaluation.metrics import (
    auc_difference,
    auc_interval,
    bootstrap_interval,
    catalog_coverage,
    ndcg_at_k,
    novelty,
    recall_at_k,
)
from multistage.evaluation.waterfall import waterfall

__all__ = [
    "Holdout",
    "auc_difference",
    "auc_interval",
    "bootstrap_interval",
    "catalog_coverage",
    "ndcg_at_k",
    "novelty",
    "recall_at_k",
    "waterfall",
]
