"""The real tritonserver, on loopback."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import pytest
import tritonclient.grpc as grpc
from conftest import CANDIDATES, NOON
from tritonclient.utils import InferenceServerException

from multistage.serving.client import Client, Reply, ServerError
from multistage.serving.load import run_load
from multistage.serving.triton import TritonError, TritonServer, free_port


@pytest.fixture(scope="module")
def users(user_features):
    return user_features["user_id"].to_numpy()


@pytest.fixture
def client(server):
    with Client(server.grpc_url) as client:
        yield client


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until(condition, seconds=30):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.1)


def test_a_thousand_users_get_the_same_as_in_process(client, ask, users):
    here = ask(users)
    for batch in (1_000, 100):
        for start in range(0, len(users), batch):
            rows = slice(start, start + batch)
            there = client.recommend(users[rows], time=NOON, k=10)
            assert np.array_equal(there.ordered_ids, here["ordered_ids"][rows])
            assert np.allclose(
                there.ordered_scores, here["ordered_scores"][rows], rtol=0, atol=1e-5
            )
            assert np.array_equal(there.fallback_status, here["fallback_status"][rows])


def test_serving_adds_nothing_to_the_repository(server, client, users, model_repository):
    client.recommend(users[:2], time=NOON, k=3)
    assert list(model_repository.rglob("__pycache__")) == []


def test_time_and_k_may_be_left_out(client, users):
    reply = client.recommend(users[:2])
    assert reply.ordered_ids.shape == (2, 10)
    assert reply.statuses == ["personal", "personal"]


def test_unknown_negative_and_huge_ids(client, users):
    reply = client.recommend([-1, 2**63 - 1, int(users[0])])
    assert reply.statuses == ["popular", "popular", "personal"]
    assert (reply.ordered_ids > 0).all()


def test_ten_thousand_users_in_one_request(client, users):
    reply = client.recommend(np.resize(users, 10_000), k=5)
    assert reply.ordered_ids.shape == (10_000, 5)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"users": []}, "user_id is empty"),
        ({"users": np.zeros(10_001, "int64")}, "at most 10000"),
        ({"users": [1], "k": 0}, f"between 1 and {CANDIDATES}"),
        ({"users": [1], "k": 10_000}, f"between 1 and {CANDIDATES}"),
        ({"users": [1, 2, 3], "k": np.array([1, 2])}, "k has 2 values for 3 users"),
        ({"users": [1], "time": float("nan")}, "a number"),
        ({"users": [1], "time": 1.6e12}, "between 1970 and 2100"),
    ],
)
def test_a_bad_request_gets_its_reason_and_the_next_one_an_answer(client, users, bad, words):
    with pytest.raises(ServerError, match=words) as refused:
        client.recommend(**bad)
    assert "Traceback" not in str(refused.value)
    assert client.recommend(users[:1]).statuses == ["personal"]


@pytest.mark.parametrize(
    ("name", "values", "kind"),
    [
        ("user_id", np.ones((1, 1), "float32"), "FP32"),
        ("user_id", np.ones((1, 1), "int32"), "INT32"),
        ("user", np.ones((1, 1), "int64"), "INT64"),
        ("user_id", np.ones(1, "int64"), "INT64"),
        ("user_id", np.ones((2, 1), "int64"), "INT64"),
        (None, None, None),
    ],
)
def test_wrong_dtype_name_shape_or_missing_input(server, client, users, name, values, kind):
    connection = grpc.InferenceServerClient(server.grpc_url)
    inputs = []
    if name:
        inputs = [grpc.InferInput(name, values.shape, kind)]
        inputs[0].set_data_from_numpy(values)
    else:
        inputs = [grpc.InferInput("k", [1, 1], "INT32")]
        inputs[0].set_data_from_numpy(np.ones((1, 1), "int32"))
    with pytest.raises(InferenceServerException, match=r"input|shape|data-type|dims"):
        connection.infer("recommender", inputs)
    connection.close()
    assert client.recommend(users[:1]).statuses == ["personal"]


def test_load_of_several_clients_without_an_error(server, users):
    batches = [users[i : i + 1] for i in range(len(users))]
    load = run_load(server.grpc_url, batches, requests=400, clients=4, time=NOON)
    assert load.errors == []
    assert len(load.latencies) == load.users == 400


def counted(server, name):
    """Return one number of the server's metrics page."""
    with urllib.request.urlopen(server.metrics_url, timeout=30) as page:
        lines = page.read().decode().splitlines()
    return float(next(line for line in lines if line.startswith(name)).split()[-1])


def test_metrics_count_the_requests(server, client, users):
    answered = partial(counted, server, "nv_inference_request_success")
    time.sleep(1)  # a request is counted after its answer has left, those of other tests too
    before = answered()
    client.recommend(users[:1])
    wait_until(lambda: answered() > before)
    assert answered() == before + 1


def test_waiting_requests_share_a_run_and_each_gets_its_own_answer_or_error(server, users):
    """Requests of different length, width and time meet, bad ones among them."""

    def question(number):
        size, k = 1 + number % 3, 1 + number % 7
        return {"users": users[number : number + size], "time": NOON + 3_600 * number, "k": k}

    questions = [question(number) for number in range(24)]
    questions += [{"users": users[:1], "k": 0}, {"users": users[:2], "time": float("nan")}]

    def answer(question):
        with Client(server.grpc_url) as client:
            try:
                return client.recommend(**question)
            except ServerError as error:
                return str(error)

    alone = [answer(question) for question in questions]
    runs = partial(counted, server, "nv_inference_exec_count")
    waiting = partial(counted, server, "nv_inference_pending_request_count")
    before = runs()
    with ThreadPoolExecutor(len(questions) + 1) as pool:
        long = pool.submit(answer, {"users": np.resize(users, 10_000)})
        time.sleep(0.5)  # it keeps the server busy for seconds, while the others gather
        together = [pool.submit(answer, question) for question in questions]
        wait_until(lambda: waiting() == len(questions))
        assert not long.done()
        together = [found.result() for found in together]
    assert runs() - before <= 6  # the long one, the first that came, and the rest; not 27
    for one, other in zip(alone[:24], together[:24], strict=True):
        for name in Reply.__dataclass_fields__:
            assert np.array_equal(getattr(one, name), getattr(other, name), equal_nan=True)
    assert together[24:] == alone[24:]
    assert "between 1 and" in together[24]
    assert "a number" in together[25]


def listening(port: int) -> set[str]:
    """Return the addresses, as the kernel writes them, on which something listens to ``port``."""
    rows = [
        line.split()
        for table in ("/proc/net/tcp", "/proc/net/tcp6")
        for line in Path(table).read_text().splitlines()[1:]
    ]
    local = [row[1].split(":") for row in rows if row[3] == "0A"]
    return {address for address, found in local if int(found, 16) == port}


def test_it_listens_on_loopback_only(server):
    loopback = {"0100007F", "0000000000000000FFFF00000100007F"}
    urls = (server.grpc_url, server.http_url, server.metrics_url.removesuffix("/metrics"))
    for url in urls:
        found = listening(int(url.rsplit(":", 1)[1]))
        assert found
        assert found <= loopback


@contextlib.contextmanager
def out_of_sight(*folders: Path):
    """Rename folders for a while, as if they had gone."""
    for folder in folders:
        folder.rename(folder.with_name(f"{folder.name}-gone"))
    try:
        yield
    finally:
        for folder in folders:
            folder.with_name(f"{folder.name}-gone").rename(folder)


def test_moved_with_its_sources_gone_beside_a_first_server_then_killed_and_restarted(
    server, model_repository, workspace, repository, users, ask, tmp_path, request
):
    here = ask(users[:5])
    moved = tmp_path / "moved" / "models"
    shutil.copytree(model_repository, moved)
    second = TritonServer(moved)
    request.addfinalizer(second.stop)
    with out_of_sight(workspace.course, repository, model_repository):
        second.start()
    assert second.grpc_url != server.grpc_url
    with Client(second.grpc_url) as client:
        there = client.recommend(users[:5], time=NOON, k=10)
        assert np.array_equal(there.ordered_ids, here["ordered_ids"])
        group = os.getpgid(second.pid)
        os.kill(second.pid, signal.SIGKILL)
        wait_until(lambda: not second.running)
        with pytest.raises(ServerError, match="No server answers at 127"):
            client.recommend(users[:1])
    second.start()
    with Client(second.grpc_url) as client:
        assert client.recommend(users[:1]).statuses == ["personal"]
        pid = second.pid
        backend = psutil.Process(pid).children(recursive=True)[-1]
        backend.kill()  # as the kernel does where memory runs out: Triton itself goes on
        wait_until(lambda: not second.running)
        with pytest.raises(ServerError, match=r"No server answers .* is not healthy"):
            client.recommend(users[:1])
    second.stop()
    second.stop()
    assert not is_alive(pid)
    with pytest.raises(ProcessLookupError):
        os.killpg(group, 0)
    assert server.running  # the first one was left alone


def test_a_server_of_somebody_else_is_not_taken_for_ones_own(server, model_repository):
    other = TritonServer(model_repository, grpc_port=int(server.grpc_url.rsplit(":")[-1]))
    assert server._ready()
    assert not other._ready()


def test_the_ports_of_one_server_differ(monkeypatch):
    """Of three ports each drawn by itself, two are the same once in four thousand starts."""
    ports = []
    for _ in range(3):
        ports.append(free_port(besides=ports))
    monkeypatch.setattr("multistage.serving.triton.UNASSIGNED", ports)
    for _ in range(10):
        server = TritonServer("repository", http_port=ports[1])
        server._prepare()
        urls = (server.http_url, server.grpc_url, server.metrics_url.removesuffix("/metrics"))
        assert {int(url.rsplit(":", 1)[1]) for url in urls} == set(ports)
        server.stop()


def test_a_free_port_is_none_that_any_program_may_be_given():
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert len({free_port() for _ in range(20)}) > 15  # two attendees hardly choose the same
    assert all(1_024 < free_port() < lowest for _ in range(20))


def test_a_damaged_repository_fails_with_the_file_and_leaves_nothing(model_repository, tmp_path):
    damaged = tmp_path / "models"
    shutil.copytree(model_repository, damaged)
    model = damaged / "recommender" / "1" / "ranker" / "saved_model.pb"
    model.write_bytes(model.read_bytes()[:-1])
    server = TritonServer(damaged)
    with pytest.raises(TritonError, match=r"ranker/saved_model\.pb is not as it was exported"):
        server.start()
    assert not server.running


def test_a_taken_port_is_named(model_repository):
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        server = TritonServer(model_repository, http_port=holder.getsockname()[1])
        with pytest.raises(TritonError, match=r"port \d+ is taken"):
            server.start()
    assert not server.running


def test_an_address_that_this_machine_does_not_have_is_named(model_repository):
    server = TritonServer(model_repository, host="192.0.2.1", http_port=free_port())
    with pytest.raises(TritonError, match=r"cannot listen on 192\.0\.2\.1.* such as 127\.0\.0\.1"):
        server.start()


SMALL_SHM = """
mount -t tmpfs -o size=64k tmpfs /dev/shm || exit 77
exec "$0" -c 'import sys; from multistage.serving.triton import TritonServer
TritonServer(sys.argv[1]).start()' "$1"
"""


def test_too_little_shared_memory_is_named(model_repository):
    command = ["unshare", "--mount", "sh", "-c", SMALL_SHM, sys.executable, str(model_repository)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode == 77 or ended.stderr.startswith("unshare:"):
        pytest.skip("only root, outside of a chroot, may give a process another /dev/shm")
    assert "There is too little shared memory in /dev/shm" in ended.stderr
    assert "Unable to initialize shared memory key" in ended.stderr  # the log's own words


@pytest.mark.parametrize(
    ("logged", "reason"),
    [  # written by a tritonserver in such a place
        (
            "/tmp/triton-x/backends/python/triton_python_backend_stub: error while loading shared "
            "libraries: libpython3.11.so.1.0: cannot open shared object file: No such file",
            "install libpython3.11",
        ),
        (
            "E1125 17:14:52.8 9 grpc_server.cc:2558] failed to start GRPC service: "
            "Unavailable - Socket '127.0.0.1:8001' already in use",
            "A port is taken",
        ),
        ("something that nobody has foreseen", "something that nobody has foreseen"),
    ],
)
def test_the_reason_is_read_from_the_log(tmp_path, logged, reason):
    server = TritonServer(tmp_path)
    server._folder = tmp_path
    (tmp_path / "log").write_text(f"I1125 starting\n{logged}\n")
    assert reason in server._failure()


def test_a_missing_repository_says_so(tmp_path):
    with pytest.raises(TritonError, match="no model repository"):
        TritonServer(tmp_path / "nothing").start()


PARENT = """
import sys, time
from multistage.serving.triton import TritonServer
server = TritonServer(sys.argv[1], grpc_port=int(sys.argv[2]))
server._prepare()
server._launch()
print(server.pid, flush=True)
time.sleep(600)
"""


def test_a_killed_kernel_leaves_no_server_behind(model_repository):
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(model_repository), str(free_port())],
        stdout=subprocess.PIPE,
        text=True,
    )
    pid = int(parent.stdout.readline())
    assert is_alive(pid)
    time.sleep(3)  # the backend's process has started by now
    children = Path(f"/proc/{pid}/task/{pid}/children")
    below = [int(child) for child in children.read_text().split()] if children.exists() else []
    parent.kill()
    parent.wait()
    wait_until(lambda: not is_alive(pid))
    wait_until(lambda: not any(is_alive(child) for child in below))
