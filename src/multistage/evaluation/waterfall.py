"""The stage waterfall: which share of held-out purchases survives each stage."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from multistage.evaluation.metrics import hits_at_k


def waterfall(stages: dict[str, NDArray[np.int64]], relevant: csr_matrix) -> pd.DataFrame:
    """Return, for each stage, how many candidates a user has left and what they still hold.

    Args:
        stages: name to ``(n_users, n)`` positions that the stage lets through, -1 for none; in
            the order of the pipeline.
        relevant: ``(n_users, n_items)``, the held-out purchases.

    Returns:
        One row a stage: ``candidates`` (mean number a user), ``surviving`` (share of all held-out
        purchases that the stage lets through), ``lost`` (share lost in this very stage).
    """
    rows = []
    before = 1.0
    for name, positions in stages.items():
        hits = hits_at_k(positions, relevant, positions.shape[1]).sum()
        surviving = float(hits / relevant.nnz)
        rows.append(
            {
                "stage": name,
                "candidates": float((positions >= 0).sum(axis=1).mean()),
                "surviving": surviving,
                "lost": before - surviving,
            }
        )
        before = surviving
    return pd.DataFrame(rows).set_index("stage")
