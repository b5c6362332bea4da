"""The stage waterfall: which share of held-out purchases survives each stage."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from multistage.evaluation.metrics import hits_at_k


def waterfall(stages: dict[str, NDArray[np.int64]], relevant: csr_matrix) -> pd.DataFrame:
    """Return, for each stage, how many candidates are left per user and what they still hold.

    Args:
        stages: name to ``(n_users, n)`` positions that the stage lets through, -1 for none; in
            the order of the pipeline.
        relevant: ``(n_users, n_items)``, the held-out purchases.

    Returns:
        One row per stage: ``candidates`` (mean number per user), ``surviving`` (share of all
        held-out purchases that the stage lets through), ``lost`` (share lost in this very stage).
        Without held-out purchases, both are NaN.

    Raises:
        ValueError: if a stage lets a product through twice, see :func:`hits_at_k`.
    """
    rows = []
    before = 1.0
    purchases = (relevant != 0).sum() or np.nan
    for name, positions in stages.items():
        hits = hits_at_k(positions, relevant, positions.shape[1]).sum()
        surviving = float(hits / purchases)
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
