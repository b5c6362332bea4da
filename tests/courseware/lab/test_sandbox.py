"""Answers that attack: files, processes, memory, the network, other people's grades.

All are graded in one run, as root and as an ordinary user, between two honest answers. What they
tried to reach is looked at afterwards.
"""

import contextlib
import csv
import json
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from courseware.errors import LabError
from courseware.exercises import exercise
from courseware.lab import sandbox
from courseware.lab.grade import grade
from tests.conftest import COURSE
from tests.courseware.lab.test_grade import first_exercises, write_submission
from tests.environments.surroundings import isolated
from tests.environments.test_places import UID, closed_folder

pytestmark = [pytest.mark.real, pytest.mark.timeout(900)]

TOKEN = "token-3f9c"
TOO_MUCH = "No space left|too much memory|Cannot allocate memory"

# Some attacks would end this machine, as root they unmount /proc: they need a sandbox around them.
ONLY_INSIDE = """
import os
if os.path.exists("/etc/passwd") or os.path.exists("/home"): raise ValueError("There is no sandbox")
"""

# Each answer finds the folder PRECIOUS, which everybody may write, servers, and other names below.
TENSORFLOW = "import tensorflow as tf; tf.io.gfile.rmtree(PRECIOUS)"
FILES = [
    "os.unlink('x.txt', dir_fd=os.open(PRECIOUS, os.O_RDONLY))",
    "assert not ctypes.CDLL(None).unlink(f'{PRECIOUS}/x.txt'.encode())",
    "sqlite3.connect(f'{PRECIOUS}/new').execute('create table t (a)')",
    "open(f'{PRECIOUS}/x.txt', 'w')",
    "open(f'/proc/1/root{PRECIOUS}/x.txt', 'w')",
    "os.rename(PRECIOUS, 'mine')",
    "shutil.rmtree(PRECIOUS)",
]
CHANGES_FILES = f"""
import ctypes, os, shutil, sqlite3
done = []
for deed in {FILES}:
    try: exec(deed); done.append(deed)
    except Exception: pass
raise ValueError(done)
"""
READING = """
import os, pathlib
found = [repr(dict(os.environ))]
for file in (f"{PRECIOUS}/x.txt", f"{PRECIOUS}/../secret", f"{HOME}/.netrc",
             "/proc/1/environ", "/proc/self/environ", f"/proc/{os.getppid()}/environ"):
    try: found.append(pathlib.Path(file).read_text())
    except OSError as error: pass
raise ValueError(found)
"""
CHANGES_THE_COURSE = """
import os, sys, courseware, pandas
for file in (courseware.__file__, pandas.__file__, os.__file__, sys.executable, "/usr/bin/env"):
    try: os.open(file, os.O_WRONLY)
    except OSError: continue
    raise ValueError("WRITTEN")
for folder in ("/", "/dev", "/usr", "/etc", "/dev/shm", os.path.dirname(courseware.__file__)):
    try: open(folder + "/x", "w")
    except OSError: continue
    raise ValueError("WRITTEN")
"""
CALLS = sandbox._REFUSED[platform.machine()]
SYSTEM_CALLS = f"""
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
found = []
for number, *given in (
    ({CALLS["unshare"]}, 0x10020000), ({CALLS["unshare"]}, 0x10000000),
    ({CALLS["shmget"]}, 0, 2**30, 0o1600), ({CALLS["memfd_create"]}, b"x", 0),
    ({CALLS["keyctl"]}, 0, -3, 0), ({CALLS["request_key"]}, b"user", b"x", None, 0),
):
    found.append((libc.syscall(number, *given), ctypes.get_errno()))
for call in (
    lambda: libc.mount(b"none", b"/tmp", b"tmpfs", 0, b"size=90%"),
    lambda: libc.mount(None, b"/usr", None, 0x1020, None),
    lambda: libc.umount2(b"/proc", 2),
    lambda: libc.setuid(0),
    lambda: libc.chroot(b"/tmp"),
):
    found.append((call(), 1))
raise ValueError(set(found))
"""
DAEMON = """
import os, time
if not os.fork():
    os.setsid()
    time.sleep(3)
    open(f"{OUTPUT}/grades.json", "w").write("[]")
"""
EVERY_DESCRIPTOR = """
import os
for number in range(256):
    for how in (number, f"/proc/self/fd/{number}", f"/proc/1/fd/{number}"):
        try:
            handle = how if how is number else os.open(how, os.O_WRONLY)
            os.set_blocking(handle, False)
            os.write(handle, WHAT)
        except OSError: pass
os._exit(0)
"""
FORGED = EVERY_DESCRIPTOR.replace("WHAT", """b'{"passed": true, "message": "", "secret": ""}'""")
FLOOD = EVERY_DESCRIPTOR.replace("WHAT", "b'[' * 10**7")
SHARED = """
import mmap
shared = mmap.mmap(-1, 6 * 2**30)
for place in range(0, len(shared), 4096): shared[place] = 1
"""
KILLS = """
import os
for number in (os.getppid(), 1, -1):
    try: os.kill(number, 9)
    except OSError: pass
return 3.0
"""
SHARED_NAME = """
from multiprocessing.shared_memory import SharedMemory
SharedMemory(create=True, size=6 * 2**30)
"""
NETWORK = """
import socket
socket.socket(type=socket.SOCK_DGRAM).sendto(b"stolen", ("127.0.0.1", PORT))
found = []
for place in (("127.0.0.1", PORT), "\\0" + SOCKET, SOCKET):
    with socket.socket(socket.AF_INET if type(place) is tuple else socket.AF_UNIX) as client:
        try: client.connect(place); found.append(place)
        except OSError: pass
raise ValueError(found)
"""
THREADS = """
from threading import Thread, stack_size
from time import sleep
stack_size(32768)
while True: Thread(target=sleep, args=[99]).start()
"""
NESTED = "import os\nfor _ in range(1200): os.mkdir('d'); os.chdir('d')\nreturn 3.0"

# What an answer does -> a part of its grade's message, as a regular expression
HOSTILE = {
    "deletes by TensorFlow": (TENSORFLOW, "It raised"),
    "changes files": (CHANGES_FILES, r"ValueError: \[\]"),
    "reads secrets": (READING, "PYTHONDONTWRITEBYTECODE"),
    "changes the course": (CHANGES_THE_COURSE + "\nreturn 3.0", "is wrong"),
    "asks the system": (SYSTEM_CALLS, r"ValueError: \{\(-1, 1\)\}"),
    "a daemon": (DAEMON, "Operation not permitted"),
    "other programs": ("import subprocess; subprocess.run(['true'])", "Operation not permitted"),
    "a fork bomb": ("import os\nwhile True: os.fork()", "Operation not permitted"),
    "kills its parent": (KILLS, "is wrong"),
    "kills itself": ("import os; os.kill(os.getpid(), 9)", "ended before the check did"),
    "threads": (THREADS, "start new thread"),
    "an array": ("import numpy as np; return float(np.ones(10**11).sum())", "too much memory"),
    "bytes": ("return float(len(bytearray(6 * 2**30)))", "too much memory"),
    "shared memory": (SHARED, TOO_MUCH),
    "shared memory by name": (SHARED_NAME, "Read-only file system|Permission denied"),
    "one file": ("f = open('big', 'wb')\nwhile True: f.write(b'x' * 10**7)", TOO_MUCH + "|large"),
    "300 files": (
        "for n in range(300): open(str(n), 'wb').write(bytes(10**7))",
        "No space left",
    ),
    "network": (NETWORK, r"ValueError: \[\]"),
    "a forged verdict": (FORGED, "ended before the check did"),
    "a flood instead of a verdict": (FLOOD, "ended before the check did"),
    "prints": ("for _ in range(300): print('x' * 10**6)\nreturn 3.0", "is wrong"),
    "writes to the console": (
        "import os\nfor _ in range(300): os.write(1, b'x' * 10**6)\nreturn 3.0",
        "is wrong",
    ),
    "nested folders": (NESTED, "is wrong"),
    "leaves": ("import os; os._exit(0)", "ended before the check did"),
    "exits": ("import sys; sys.exit(0)", "It raised SystemExit"),
    "a long message": ("raise ValueError('x' * 10**8)", "It raised ValueError: xxx"),
    "a surrogate": ("raise ValueError('a\\udc80b')", "ValueError: a b"),
    "markup": ("raise ValueError('[/bold] [red]x[/red] :boom:')", r"\[/bold\] \[red\]x\[/red\] :b"),
    "escapes": (
        "raise ValueError('\\x1b]0;x\\x07\\x1b[2J\\x9b1m\\r\\nada 1.1 yes')",
        r"ada 1\.1 yes",
    ),
    "turned text": ("raise ValueError('a\\u202eb\\u2028c\\u200bd')", "ValueError: a b c d"),
    "a message that is none": (
        "class E(Exception):\n    def __str__(self): raise SystemExit\nraise E()",
        "ended before the check did|It raised",
    ),
}


@pytest.fixture(scope="module", params=["this user", "an ordinary user"])
def company(request):
    """The grades of all hostile answers, and what they tried to reach, afterwards."""
    ordinary = request.param != "this user"
    if problem := sandbox.problem():
        pytest.skip(problem)
    if ordinary and os.geteuid():
        pytest.skip("this user is one")
    with tempfile.TemporaryDirectory() as root, contextlib.ExitStack() as stack:
        root = Path(root)
        root.chmod(0o755)
        home, output = root / "home", root / "grades"
        for folder in (home, output):
            folder.mkdir()
            folder.chmod(0o777)
        for secret in (home / ".netrc", root / "secret"):
            secret.write_text(TOKEN)
        servers, place = listen(stack, root / "socket")
        folders = [write_submission(root / "ada")]
        for number, (name, (body, _)) in enumerate(HOSTILE.items()):
            precious = root / f"precious{number}"
            precious.mkdir()
            (precious / "x.txt").write_text(TOKEN)
            (precious / "x.txt").chmod(0o666)
            precious.chmod(0o777)
            given = {"PRECIOUS": precious, "HOME": home, "OUTPUT": output, "SOCKET": place}
            lines = [f"{key} = {str(value)!r}" for key, value in given.items()]
            lines += [f"PORT = {servers[0].getsockname()[1]}", ONLY_INSIDE, body]
            folders.append(write_submission(root / f"{number} {name}", "\n".join(lines)))
        folders.append(write_submission(root / "zoe"))
        stack.callback(lambda: [shutil.rmtree(f, ignore_errors=True) for f in folders])
        command = [Path(__file__).with_name("grade_first.py"), 60, output, *folders]
        variables = {"HOME": str(home), "TOKEN": TOKEN, "PATH": "/usr/bin:/bin"}
        ended = run(command, variables, ordinary)
        if "bubblewrap does not work here" in ended.stderr:
            pytest.skip(ended.stderr)
        assert ended.returncode == 0, ended.stderr
        yield SimpleNamespace(
            grades=json.loads(ended.stdout), root=root, output=output, servers=servers
        )


def listen(stack, socket_file):
    """Servers that nobody may reach: of TCP, UDP, and two of this machine's own kind."""
    tcp = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    udp = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    udp.bind(tcp.getsockname())
    servers = [tcp, udp]
    for name in (str(socket_file), f"\0{socket_file}"):
        server = stack.enter_context(socket.socket(socket.AF_UNIX))
        server.bind(name)
        server.listen()
        servers.append(server)
    socket_file.chmod(0o777)
    for server in servers:
        server.settimeout(0.1)
    return servers, socket_file


AS_USER = """
closed="$1" needed="$2"
shift 2
if [ "$closed" ]; then
  mount -t tmpfs -o mode=755 tmpfs /mnt
  IFS=:
  n=0
  for folder in $needed; do
    n=$((n + 1)); mkdir /mnt/$n; mount --rbind "$folder" /mnt/$n
  done
  mount -t tmpfs -o mode=755 tmpfs "$closed"
  n=0
  for folder in $needed; do
    n=$((n + 1)); mkdir -p "$folder"; mount --rbind /mnt/$n "$folder"
  done
fi
exec setpriv --reuid $UID --regid $UID --clear-groups "$0" "$@"
"""


def run(command, variables, ordinary):
    """Run a program of Python, as an ordinary user or as this one."""
    if not ordinary:
        return subprocess.run(
            [sys.executable, *map(str, command)],
            env=variables,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
    closed, needed = closed_folder(COURSE)
    needed = ":".join(str(folder) for folder in dict.fromkeys(needed))
    script = AS_USER.replace("$UID", str(UID))
    return isolated(script, closed, needed, *command, environment=variables, timeout=600)


def message_of(company, name):
    (got,) = (one for one in company.grades if one["attendee"].partition(" ")[2] == name)
    return got


@pytest.mark.parametrize("name", HOSTILE)
def test_an_attack_is_a_row(company, name):
    got = message_of(company, name)
    assert not got["passed"]
    assert re.search(HOSTILE[name][1], got["message"]), got["message"]
    assert len(got["message"]) <= 500
    assert got["message"].isprintable()


def test_honest_answers_beside_them_pass(company):
    assert len(company.grades) == len(HOSTILE) + 2
    for place in (0, -1):
        assert company.grades[place]["passed"], company.grades[place]["message"]


def test_files_outside_are_as_they_were(company):
    for number in range(len(HOSTILE)):
        folder = company.root / f"precious{number}"
        assert os.listdir(folder) == ["x.txt"]
        assert (folder / "x.txt").read_text() == TOKEN


def test_no_secret_is_told(company):
    assert TOKEN not in json.dumps(company.grades)


def test_nothing_left_this_machine_or_reached_its_servers(company):
    for server in company.servers:
        with pytest.raises(TimeoutError):
            server.recv(100) if server.type == socket.SOCK_DGRAM else server.accept()


def test_the_tables_are_those_of_the_grader(company):
    assert sorted(os.listdir(company.output)) == ["grades.csv", "grades.json"]
    assert json.loads((company.output / "grades.json").read_text()) == company.grades
    rows = list(csv.reader((company.output / "grades.csv").open(newline="")))
    assert len(rows) == len(company.grades) + 1


def test_without_the_sandbox_the_same_attacks_succeed(tmp_path, monkeypatch):
    """They are real ones, and --trust means what it says."""
    bodies = [
        f"import os; {FILES[0]}",
        "raise ValueError(open(PRECIOUS + '/secret').read())",
        f"{ONLY_INSIDE}\nos.unlink(PRECIOUS + '/x.txt')",
    ]
    folders = []
    for number, body in enumerate(bodies):
        precious = tmp_path / f"precious{number}"
        precious.mkdir()
        (precious / "x.txt").write_text("x")
        (precious / "secret").write_text(TOKEN)
        given = f"PRECIOUS = {str(precious)!r}\n{body}"
        folders.append(write_submission(tmp_path / f"eve{number}", given))
    monkeypatch.setattr(exercise, "exercises_of", first_exercises(1))
    deleted, told, careful = grade(folders, trust=True)
    assert not (tmp_path / "precious0" / "x.txt").exists()
    assert TOKEN in told.message
    assert not deleted.passed
    assert "There is no sandbox" in careful.message
    assert (tmp_path / "precious2" / "x.txt").exists()


def test_without_bubblewrap_nothing_is_run(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    mark = tmp_path / "mark"
    folder = write_submission(tmp_path / "eve", f"open({str(mark)!r}, 'w')")
    with pytest.raises(LabError, match=r"apt-get install bubblewrap.*--trust"):
        grade([folder])
    assert not mark.exists()


def test_what_the_system_refuses_is_said(tmp_path, monkeypatch):
    """As in a container without the right: bubblewrap is there and may not work."""
    refusing = tmp_path / "bwrap"
    refusing.write_text(
        "#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1"
    )
    refusing.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(
        LabError, match="bubblewrap does not work here: bwrap: No permissions to create"
    ):
        grade([write_submission(tmp_path / "ada")])


def test_of_a_home_only_the_python_in_it_is_shown(tmp_path, monkeypatch):
    """uv keeps one there, behind links; the course and its environment stand there as well."""
    home = tmp_path / "home"
    python = home / ".local/share/uv/python/cpython-3.11.9/bin/python3.11"
    for folder in (python.parent, home / ".local/bin", home / "course/.venv/bin"):
        folder.mkdir(parents=True)
    python.touch()
    version = python.parents[2] / "cpython-3.11"
    version.symlink_to("cpython-3.11.9")
    link = home / ".local/bin/python3.11"
    link.symlink_to("../share/uv/python/cpython-3.11/bin/python3.11")
    (home / "course/.venv/bin/python").symlink_to(link)
    for prefix, base in (("course/.venv", version), ("course/.venv", Path("/usr"))):
        monkeypatch.setattr(sys, "prefix", str(home / prefix))
        monkeypatch.setattr(sys, "base_prefix", str(base))
        seen = sandbox._seen.__wrapped__()
        assert ["--symlink", os.readlink(link), str(link)] in seen
        assert ["--symlink", "cpython-3.11.9", str(version)] in seen
        assert [o[2] for o in seen if o[0] == "--ro-bind" and Path(o[2]).is_relative_to(home)] == [
            str(python.parents[1]),
            str(home / "course/.venv"),
        ]


def test_of_a_system_whose_python_is_a_link_the_root_is_not_shown(tmp_path, monkeypatch):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to("/bin/env")
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    monkeypatch.setattr(sys, "base_prefix", "/usr")
    places = [option[-1] for option in sandbox._seen.__wrapped__()]
    assert str(tmp_path) in places
    assert "/" not in places
