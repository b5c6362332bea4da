"""Start a real Triton Inference Server, wait until it is ready, and stop it reliably.

The server is the ``tritonserver`` on PATH (in a container), or the one in the wheel
``nvidia-pytriton``. It listens on loopback, on free ports.
"""

import contextlib
import ctypes
import errno
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
import uuid
from collections.abc import Callable, Collection
from importlib import util
from pathlib import Path
from typing import Any

import psutil

from multistage.errors import CourseError
from multistage.loopback import LOOPBACK

# A server with this variable reads the feature repository that it names, not the exported copy.
LIVE_REPOSITORY = "MULTISTAGE_FEATURE_REPOSITORY"
# Tells `lab status` and `lab reset` whose server it is: the command line names a copy.
SERVES = "MULTISTAGE_SERVES"
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
LIBPYTHON = f"libpython{PYTHON}.so.1.0"
PR_SET_PDEATHSIG = 1
UNASSIGNED = range(20_000, 32_000)  # below the ports that Linux assigns by itself
# Of /dev/shm. A server takes 1 MB of it, and keeps what a request needed: 4 MB for 10,000 users.
SHARED_MB = 16

# What the log says, and the message for the user.
REASONS = (
    (r"libpython[\w.]+: cannot open", f"{LIBPYTHON} was not found: install libpython{PYTHON}."),
    (r"ddress already in use|failed to start .* service", "A port is taken: choose another."),
    (
        r"No space left on device|shm.*(?:fail|unable)|Failed to initialize the shared memory",
        f"There is too little shared memory in /dev/shm: {SHARED_MB} MB should be free.",
    ),
    (r"is not as it was exported|cannot be read: export", "The model repository is damaged."),
    (r"No module named '?(\w+)", "A Python package is missing in the server's environment."),
)


class TritonError(CourseError):
    """The server did not start, or is gone; the message gives the log's own reason."""


def end_groups(leaders: Collection[int], seconds: float) -> None:
    """End processes, each with its process group if it leads one.

    Args:
        leaders: their process ids.
        seconds: the time that they have to end by themselves, before they are killed.
    """
    for sign in (signal.SIGTERM, signal.SIGKILL):
        for pid in leaders:
            with contextlib.suppress(ProcessLookupError):
                if os.getpgid(pid) == pid:
                    os.killpg(pid, sign)
                else:
                    os.kill(pid, sign)
        deadline = time.monotonic() + seconds
        while any(map(_runs, leaders)) and time.monotonic() < deadline:
            time.sleep(0.05)
        if not any(map(_runs, leaders)):
            return


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def free_port(besides: Collection[int | None] = ()) -> int:
    """Return a TCP port of the loopback interface that is free now, and none of ``besides``.

    Triton binds its ports half a minute later. So the port is not one that the kernel would assign
    to another connection in the meantime.
    """
    for port in random.SystemRandom().sample(UNASSIGNED, len(UNASSIGNED)):
        if port in besides:
            continue
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((LOOPBACK, port))
            return port
    raise TritonError(f"No port from {UNASSIGNED[0]} to {UNASSIGNED[-1]} is free.")


class TritonServer:
    """One server process for one model repository; a context manager.

    The process is in a group of its own and dies with the thread that started it, so a killed
    kernel leaves no server behind. Nothing is stopped that was not started here.
    """

    def __init__(
        self,
        repository: Path | str,
        *,
        host: str = LOOPBACK,
        http_port: int | None = None,
        grpc_port: int | None = None,
        metrics_port: int | None = None,
        environment: dict[str, str] | None = None,
        wait: float = 300.0,
    ) -> None:
        """Prepare to serve ``repository``; :meth:`start` or ``with`` starts.

        Args:
            repository: a Triton model repository.
            host: the address to listen on.
            http_port: a port, or None for a free one; likewise the others.
            grpc_port: see ``http_port``.
            metrics_port: see ``http_port``.
            environment: variables to set for the server beside the current ones.
            wait: seconds within which the server must be ready.
        """
        self.repository = Path(repository).resolve()
        self.host = host
        self._ports = [http_port, grpc_port, metrics_port]
        self._environment = environment or {}
        self._wait = wait
        self._name = f"multistage-{uuid.uuid4()}"
        self._process: subprocess.Popen | None = None
        self._backends: list[psutil.Process] = []
        self._folder: Path | None = None
        self.seconds_to_ready = float("nan")

    def __enter__(self) -> "TritonServer":
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    @property
    def pid(self) -> int | None:
        """The server's process id while it runs."""
        return self._process.pid if self.running else None

    @property
    def running(self) -> bool:
        """Whether the server is there, and with it the Python process that runs the model.

        Triton goes on without the latter, calls itself ready, and refuses every request.
        """
        return self._alive and all(
            process.is_running() and process.status() != psutil.STATUS_ZOMBIE
            for process in self._backends
        )

    @property
    def _alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def grpc_url(self) -> str:
        """``host:port`` of the gRPC service."""
        return f"{self.host}:{self._ports[1]}"

    @property
    def http_url(self) -> str:
        """``host:port`` of the HTTP service."""
        return f"{self.host}:{self._ports[0]}"

    @property
    def metrics_url(self) -> str:
        """The address of the metrics, in Prometheus' text format."""
        return f"http://{self.host}:{self._ports[2]}/metrics"

    @property
    def log(self) -> str:
        """What the server has written so far."""
        return (self._folder / "log").read_text(errors="replace") if self._folder else ""

    @property
    def log_errors(self) -> str:
        """The end of the log, errors before other lines."""
        lines = self.log.splitlines()
        errors = [line for line in lines if re.match(r"[EF]\d{4} |\w*(Error|rror:)", line)]
        return "\n".join((errors or lines)[-8:])

    def start(self, progress: Callable[[float], Any] | None = None) -> "TritonServer":
        """Start the server and return when every model is ready.

        Args:
            progress: called with the seconds waited, about twice per second.

        Raises:
            TritonError: if there is no server to start, or it is not ready in time, with the reason
                that its log gives. Nothing is left running then.
        """
        if self.running:
            return self
        if not self.repository.is_dir():
            raise TritonError(f"There is no model repository {self.repository.name!r}: export one.")
        self.stop()  # what is left of one that was killed
        self._prepare()
        begin = time.monotonic()
        try:
            self._launch()
            while not self._ready():
                waited = time.monotonic() - begin
                if not self.running or waited > self._wait:
                    raise TritonError(self._failure())
                if progress:
                    progress(waited)
                time.sleep(0.25)
        except BaseException:
            self.stop()
            raise
        self.seconds_to_ready = time.monotonic() - begin
        self._backends = psutil.Process(self._process.pid).children(recursive=True)
        return self

    def stop(self) -> None:
        """Stop the server, if it runs, and remove what it needed; more than once is no error."""
        if self._process:
            if self._alive:
                end_groups([self._process.pid], seconds=15)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(5)
            # Python backends that outlived a killed server
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)
        self._process = self._folder = None
        self._backends = []

    def _prepare(self) -> None:
        for port in filter(None, self._ports):
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind((self.host, port))
                except OSError as error:
                    taken = error.errno == errno.EADDRINUSE
                    raise TritonError(
                        f"tritonserver cannot start: port {port} is taken. Stop what listens on "
                        "it, or choose another."
                        if taken
                        else f"tritonserver cannot listen on {self.host} ({error.strerror}): name "
                        f"an address of this machine, such as {LOOPBACK}."
                    ) from None
        for place, port in enumerate(self._ports):
            self._ports[place] = port or free_port(besides=self._ports)
        self._folder = Path(tempfile.mkdtemp(prefix="triton-"))

    def _launch(self) -> None:
        # The server gets a copy: its Python backend writes byte code beside the models, and the
        # repository is an artifact that must not get files unknown to its manifest.
        served = self._folder / "repository"
        shutil.copytree(self.repository, served, ignore=shutil.ignore_patterns("__pycache__"))
        binary, backends, libraries = _installation(self._folder)
        http, grpc, metrics = self._ports
        command = [
            str(binary),
            f"--id={self._name}",
            f"--model-repository={served}",
            f"--http-address={self.host}",
            f"--http-port={http}",
            f"--grpc-address={self.host}",
            f"--grpc-port={grpc}",
            f"--metrics-address={self.host}",
            f"--metrics-port={metrics}",
            f"--backend-config=python,shm-region-prefix-name=multistage_{grpc}_",
            "--exit-timeout-secs=5",
            "--allow-gpu-metrics=false",
            "--metrics-config=summary_latencies=true",
        ]
        if backends:
            command.append(f"--backend-directory={backends}")
        environment = os.environ | self._environment | {SERVES: str(self.repository)}
        environment["PATH"] = os.pathsep.join(
            [str(Path(sys.executable).parent), os.environ["PATH"]]
        )
        environment["PYTHONPATH"] = os.pathsep.join(
            [str(_source_folder()), *filter(None, [os.environ.get("PYTHONPATH")])]
        )
        environment["LD_LIBRARY_PATH"] = os.pathsep.join(
            [*libraries, *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]
        )
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )

    def _ready(self) -> bool:
        from tritonclient.utils import InferenceServerException

        from multistage.serving.client import connect

        with contextlib.closing(connect(self.grpc_url, local=True)) as client:
            try:
                # Another server may have taken the port in between: it has another name.
                found = client.get_server_metadata(client_timeout=1.0).name
                return found == self._name and client.is_server_ready(client_timeout=1.0)
            except InferenceServerException:
                return False

    def _failure(self) -> str:
        log = self.log
        reason = next(
            (text for pattern, text in REASONS if re.search(pattern, log)),
            "The server says:" if not self.running else f"Not ready within {self._wait:.0f} s.",
        )
        return f"tritonserver did not start. {reason}\n{self.log_errors}"


def _source_folder() -> Path:
    return Path(__file__).parents[2]


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _installation(folder: Path) -> tuple[Path, Path | None, list[str]]:
    """Return the server's binary, its backends, and where its libraries are.

    The wheel's backend is copied into ``folder``, with the stub of this Python beside it: the
    place where the wheel was installed to may be read-only.
    """
    on_path = shutil.which("tritonserver")
    if on_path:
        return Path(on_path), None, []
    spec = util.find_spec("pytriton")
    if not spec:
        raise TritonError(
            "There is no tritonserver: neither on PATH nor in the package nvidia-pytriton. "
            "Install the requirements of the course (make setup)."
        )
    wheel = Path(spec.origin).parent / "tritonserver"
    stub = wheel / "python_backend_stubs" / PYTHON / "triton_python_backend_stub"
    if not stub.exists():
        raise TritonError(f"nvidia-pytriton has no backend for Python {PYTHON}: use Python 3.11.")
    backends = folder / "backends"
    shutil.copytree(wheel / "backends" / "python", backends / "python")
    shutil.copy2(stub, backends / "python")
    libraries = [str(wheel.parents[1] / "nvidia_pytriton.libs")]
    return wheel / "bin" / "tritonserver", backends, [*libraries, *_libpython()]


def _libpython() -> list[str]:
    """Return folders that hold the shared libpython, none if the linker finds it by itself."""
    folders = (sysconfig.get_config_var("LIBDIR"), os.path.join(sys.base_prefix, "lib"))
    return [folder for folder in dict.fromkeys(folders) if folder and _has_libpython(folder)]


def _has_libpython(folder: str) -> bool:
    return os.path.exists(os.path.join(folder, LIBPYTHON))
