"""Merlin Systems operators for a batch of users: they read columns and add others.

Every operator keeps one row per user. Candidates are a fixed-width column of shape (users, width);
a place that no product fills holds ``NO_PRODUCT``.
"""

from multistage.serving.operators.base import NO_PRODUCT, ServingOperator
from multistage.serving.operators.features import QueryUserFeatures
from multistage.serving.operators.filtering import FilterCandidates
from multistage.serving.operators.ordering import (
    OrderByDiversity,
    OrderBySampling,
    OrderByScore,
)
from multistage.serving.operators.retrieval import EncodeUsers, RetrieveCandidates
from multistage.serving.operators.retrieval_scores import AddRetrievalScores
from multistage.serving.operators.scoring import ScoreCandidates

__all__ = [
    "NO_PRODUCT",
    "AddRetrievalScores",
    "EncodeUsers",
    "FilterCandidates",
    "OrderByDiversity",
    "OrderBySampling",
    "OrderByScore",
    "QueryUserFeatures",
    "RetrieveCandidates",
    "ScoreCandidates",
    "ServingOperator",
]
