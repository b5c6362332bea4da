"""Features without leaks: what was known at the time, and target means that never see their row."""

from multistage.features.candidates import fuse, list_features, top_positions
from multistage.features.columns import hour, log_price, relative_price, weekday
from multistage.features.history import add_user_history, user_history
from multistage.features.neighbours import Neighbours, ease_weights
from multistage.features.tables import fit_workflow, write_table
from multistage.features.target_encoding import TargetEncoding

__all__ = [
    "Neighbours",
    "TargetEncoding",
    "add_user_history",
    "ease_weights",
    "fit_workflow",
    "fuse",
    "hour",
    "list_features",
    "log_price",
    "relative_price",
    "top_positions",
    "user_history",
    "weekday",
    "write_table",
]
