"""Little shared memory: Docker gives a container 64 MB of it, where nobody asks for more."""

from multistage.serving.triton import SHARED_MB
from tests.environments.surroundings import isolated

ROOM = 'mount -t tmpfs -o size="$1" tmpfs /dev/shm; shift; exec "$0" "$@"'

SERVERS = """
import shutil
import sys
from contextlib import ExitStack
from pathlib import Path
from multistage.commands.checks import shared_memory
from multistage.serving.client import Client
from multistage.serving.triton import TritonServer
with ExitStack() as stack:
    servers = [stack.enter_context(TritonServer(sys.argv[1], wait=30)) for _ in range(2)]
    for server in servers:
        with Client(server.grpc_url) as client:
            print(len(client.recommend(range(10_000)).fallback_status))
    print(shutil.disk_usage("/dev/shm").used)
    print(shared_memory(Path()))
"""


def test_two_servers_run_in_what_docker_gives_and_doctor_calls_it_enough(models):
    ended = isolated(ROOM, "64m", "-c", SERVERS, models)
    assert ended.returncode == 0, ended.stderr
    *answered, used, doctor = ended.stdout.splitlines()
    assert answered == ["10000", "10000"]
    assert 2 <= int(used) / 2**20 < 2 * SHARED_MB
    assert "state='ok'" in doctor


def test_too_little_is_named_with_what_is_needed(models):
    """With room for nothing: the log speaks of its own files, the reason of what is needed."""
    ended = isolated(ROOM, "64k", "-c", SERVERS, models)
    assert ended.returncode
    assert f"/dev/shm: {SHARED_MB} MB should be free" in ended.stderr
    doctor = "from multistage.commands.checks import *; print(shared_memory(Path()))"
    found = isolated(ROOM, "64k", "-c", doctor).stdout
    assert "state='broken'" in found
    assert f"{SHARED_MB} needed" in found
