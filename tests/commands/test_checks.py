import sys
from importlib import metadata

from multistage.commands import checks


def lock(tmp_path, text):
    (tmp_path / "requirements").mkdir()
    (tmp_path / "requirements" / "cpu.txt").write_text(text)
    return tmp_path


def test_packages_are_compared_with_their_pins(tmp_path):
    version = metadata.version("numpy")
    text = (
        f"numpy=={version} \\\n    --hash=sha256:00\n"
        "pytest==0.0.1 \\\n    --hash=sha256:00\n"
        "no-such-package==1.0 \\\n    --hash=sha256:00\n"
        "for-others==1.0 ; sys_platform == 'win32' \\\n    --hash=sha256:00\n"
    )
    finding = checks.packages(lock(tmp_path, text))
    assert finding.state == "broken"
    assert "no-such-package missing, pinned 1.0" in finding.found
    assert "pytest" in finding.found
    assert "numpy" not in finding.found
    assert "for-others" not in finding.found
    assert "make setup" in finding.fix


def test_a_lock_is_not_for_another_python(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 10, 13))
    assert checks.packages(lock(tmp_path, "numpy==0.0.1\n")).state == "note"
