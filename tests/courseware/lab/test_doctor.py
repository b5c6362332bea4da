import json
import shutil
import socket
import subprocess
import sys
from collections import namedtuple

import pytest

from courseware.lab import doctor
from multistage.commands import checks
from tests.conftest import COURSE
from tests.small_course import write_map


@pytest.mark.real
def test_this_machine_is_told_line_by_line():
    ended = subprocess.run(
        [sys.executable, "-m", "courseware.lab", "doctor", "--deep", "--json", "--root", COURSE],
        capture_output=True,
        text=True,
        timeout=60,
    )
    findings = {one["what"]: one for one in json.loads(ended.stdout)}
    assert findings["Python"]["state"] == "ok"
    assert findings["Triton server"]["state"] == "ok"
    assert findings["libpython"]["state"] == "ok"
    assert "ready after" in findings["Triton starts"]["found"]
    assert " sees " in findings["TensorFlow"]["found"]
    broken = [one for one in findings.values() if one["state"] == "broken"]
    assert ended.returncode == bool(broken)
    assert all(one["fix"] for one in findings.values() if one["state"] == "broken")


def test_a_taken_port_is_named(tmp_path, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        monkeypatch.setattr(doctor, "PORTS", (port,))
        assert f"{port} taken" in doctor.ports(tmp_path).found
    assert doctor.ports(tmp_path).state == "ok"


Usage = namedtuple("Usage", "total used free")


@pytest.mark.parametrize(
    ("check", "said"),
    [(doctor.disk, "Free some space"), (checks.shared_memory, "--shm-size")],
)
def test_a_full_disk_is_broken_and_says_how_to_fix_it(tmp_path, monkeypatch, check, said):
    write_map(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10, 9, 1))
    finding = check(tmp_path)
    assert finding.state == "broken"
    assert said in finding.fix
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(2**50, 0, 2**50))
    assert check(tmp_path).state == "ok"


def test_a_check_that_fails_does_not_stop_the_others(tmp_path, monkeypatch):
    write_map(tmp_path)

    def fails(path):
        raise OSError("gone")

    monkeypatch.setattr(shutil, "disk_usage", fails)
    findings = {finding.what: finding for finding in doctor.examine(tmp_path)}
    assert "could not be checked: OSError: gone" in findings["disk"].found
    assert "Python" in findings
    assert "GPU" in findings
