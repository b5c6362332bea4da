"""Features without leaks: what was known at the time, and target means that never see their row."""

from multistage.features.columns import hour, log_price, relative_price, weekday
from multistage.features.ease import EASE, ease_weights
from multistage.features.history import add_user_history, user_history
from multistage.features.tables import fit_workflow, write_table
from multistage.features.target_encoding import TargetEncoding

__all__ = [
    "EASE",
    "TargetEncoding",
    "add_user_history",
    "ease_weights",
    "fit_workflow",
    "hour",
    "log_price",
    "relative_price",
    "user_history",
    "weekday",
    "write_table",
]
