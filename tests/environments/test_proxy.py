"""A machine whose proxies are set, with nothing that excepts the machine itself from them."""

import json
import os
import signal
import subprocess
import sys
from urllib.request import proxy_bypass

import pytest

from multistage.loopback import bypass_proxies, is_local
from multistage.serving.client import Client
from multistage.serving.triton import TritonServer

PROXIES = [f"{kind}_proxy" for kind in ("http", "https", "all", "grpc")]
EXCEPTIONS = ("no_proxy", "NO_PROXY", "no_grpc_proxy")
NOBODY = "http://127.0.0.1:9"  # as a proxy refuses what it does not know


def behind_a_proxy(**listed: str) -> dict[str, str]:
    """The variables of such a machine, and ``listed``."""
    ours = {name: value for name, value in os.environ.items() if name not in EXCEPTIONS}
    both_cases = [*PROXIES, *map(str.upper, PROXIES)]
    return ours | dict.fromkeys(both_cases, NOBODY) | {"TERM": "dumb"} | listed


@pytest.fixture(scope="module")
def server(models):
    with TritonServer(models) as server:
        yield server


def run(program, *arguments, **listed):
    return subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        env=behind_a_proxy(**listed),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


PROGRAM = """
import sys
from multistage.serving.client import Client
from multistage.serving.triton import TritonServer
with TritonServer(sys.argv[1], wait=20) as server, Client(server.grpc_url) as client:
    print(client.recommend([7]).statuses)
"""


def test_a_program_of_ones_own_reaches_its_server(models):
    ended = run(PROGRAM, models)
    assert ended.stdout == "['personal']\n", ended.stderr


LAB = """
import sys
from urllib.request import urlopen
import tritonclient.grpc as grpc
from multistage.tensorflow_setup import quiet
quiet()
grpc_url, metrics_url = sys.argv[1:]
with grpc.InferenceServerClient(grpc_url) as client:
    print(client.is_model_ready("recommender"))
for host in ("127.0.0.1", "localhost"):
    page = urlopen(metrics_url.replace("127.0.0.1", host)).read()
    print(b"nv_inference_request_success" in page)
"""


@pytest.mark.parametrize("listed", [{}, {"no_proxy": "*"}], ids=["nothing", "everything"])
def test_a_lab_may_call_the_libraries_themselves(server, listed):
    """gRPC takes no notice of a ``*`` in ``no_proxy``."""
    ended = run(LAB, server.grpc_url, server.metrics_url, **listed)
    assert ended.stdout.split() == ["True"] * 3, ended.stderr


def test_lab_serve_is_ready_and_answers(served):
    command = [sys.executable, "-m", "courseware.lab", "serve", "--profile", "ci", "--json"]
    process = subprocess.Popen(
        ["timeout", "-s", "INT", "30", *command, "--root", str(served.course)],
        env=behind_a_proxy(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        line = process.stdout.readline()
        assert line, f"not ready within half a minute: {process.communicate()[1]}"
        with Client(json.loads(line)["grpc"]) as client:
            assert client.recommend([7, 8]).ordered_ids.shape == (2, 40)
        process.send_signal(signal.SIGINT)
        assert "stopped" in process.communicate(timeout=30)[1]
    finally:
        process.kill()


HERE = "127.0.0.1,localhost,::1"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, (HERE, HERE, HERE)),
        ({"no_proxy": ""}, (HERE, HERE, HERE)),
        ({"NO_PROXY": "a.org, b.org"}, (f"a.org,b.org,{HERE}",) * 3),
        (
            {"no_proxy": "a.org", "NO_PROXY": "b.org"},
            (f"a.org,{HERE}", f"b.org,{HERE}", f"a.org,{HERE}"),
        ),
        ({"no_proxy": "::1,localhost,127.0.0.1"}, ("::1,localhost,127.0.0.1",) * 3),
        ({"no_proxy": "*"}, ("*", None, f"*,{HERE}")),
        ({"no_grpc_proxy": "g.org"}, (HERE, HERE, f"g.org,{HERE}")),
    ],
)
def test_what_is_listed_is_kept(monkeypatch, before, after):
    for name in EXCEPTIONS:
        monkeypatch.delenv(name, raising=False)
    for name, value in before.items():
        monkeypatch.setenv(name, value)
    for _ in range(2):  # a second time changes nothing
        bypass_proxies()
        assert tuple(os.environ.get(name) for name in EXCEPTIONS) == after
    assert proxy_bypass("127.0.0.1:8000")
    assert not proxy_bypass("elsewhere.org") or before.get("no_proxy") == "*"


def test_only_this_machine_is_asked_without_a_proxy():
    here = ("127.0.0.1", "127.1.2.3", "localhost", "0.0.0.0", "[::1]", "[::]")
    assert all(map(is_local, here))
    assert not any(map(is_local, ("10.0.0.1", "triton", "localhost.org", "[2001:db8::1]", "")))
