"""The course on emulated 64-bit Arm, where somebody asks for that."""

import os
import subprocess
import sys
from importlib.util import find_spec

import pytest

from tests.conftest import COURSE
from tests.packaging.arm64 import modules

ROOT = "MULTISTAGE_ARM64"  # a folder that is not there yet: make the emulated root in it


def test_what_the_course_names_is_a_module_on_both_machines():
    text = (COURSE / "requirements" / "cpu.in").read_text()
    here, arm = (list(modules(text, machine)) for machine in ("x86_64", "aarch64"))
    assert set(here) == set(arm)
    assert len(here) > 30
    assert [name for name in here if not find_spec(name.partition(".")[0])] == []


@pytest.mark.skipif(ROOT not in os.environ, reason=f"{ROOT} names no folder to make a root in")
def test_on_emulated_arm():
    subprocess.run(
        [sys.executable, "-m", "tests.packaging.arm64", os.environ[ROOT]], cwd=COURSE, check=True
    )
