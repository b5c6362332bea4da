"""Courses of a few lines, for tests that build, run or break one."""

import json
from pathlib import Path

MAP = """\
title = "A small course"
defaults = {{ dataset = "store", profile = "laptop" }}
profiles = {{ ci = {{ memory = [0.1], disk = 1 }}, laptop = {{ memory = [0.2], disk = 2 }} }}
labs = [{labs}]
"""


def write_map(root: Path, **labs: dict[str, list[str]]) -> None:
    """Write ``course.toml``; each lab's name leads to what it ``reads`` and ``makes``."""
    for folder in ("labs_solutions", "notebooks"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    tables = [
        f'{{ file = "{name}", title = "{name[3:]}", minutes = 1, '
        f"reads = {json.dumps(lab.get('reads', []))}, makes = {json.dumps(lab.get('makes', []))} }}"
        for name, lab in labs.items()
    ]
    (root / "course.toml").write_text(MAP.format(labs=", ".join(tables)))
