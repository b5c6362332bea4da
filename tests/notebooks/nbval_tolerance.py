"""A pytest plugin: nbval compares recorded metrics as numbers, all else to the letter.

Training on another processor moves the last digits of an AUC. A recorded metric may differ from
the committed one by ``RELATIVE``; its name and place may not.
"""

import copy
import math
from typing import Any

from nbval.plugin import IPyNbCell

from courseware.records import RECORD

RELATIVE = 0.05

_to_the_letter = IPyNbCell.compare_outputs


def compare_outputs(self: IPyNbCell, test: list, ref: list, **options: Any) -> bool:
    """Compare as nbval does, after replacing records that are close by the committed ones."""
    test = copy.deepcopy(test)
    if len(test) == len(ref):
        for new, committed in zip(test, ref, strict=True):
            if _close(new, committed):
                new["data"] = copy.deepcopy(committed["data"])
    return _to_the_letter(self, test, ref, **options)


def _close(new: dict, committed: dict) -> bool:
    a = new.get("metadata", {}).get(RECORD)
    b = committed.get("metadata", {}).get(RECORD)
    if not a or not b or a["name"] != b["name"]:
        return False
    return math.isclose(a["value"], b["value"], rel_tol=RELATIVE)


IPyNbCell.compare_outputs = compare_outputs
