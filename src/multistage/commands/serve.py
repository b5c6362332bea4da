"""``lab serve``: serve what lab 5 exported, until it is interrupted."""

import json
import signal
import sys
import threading
import time
from typing import Annotated

import typer
from rich.console import Console

from courseware.course import Course, find_course
from courseware.lab.options import Dataset, Json, Profile, Root
from courseware.loopback import LOOPBACK, check_loopback
from courseware.workspaces import open_workspace
from multistage.errors import CourseError


def command(
    dataset: Dataset = "",
    profile: Profile = "",
    host: Annotated[str, typer.Option(help="The address to listen on.")] = LOOPBACK,
    grpc_port: Annotated[int | None, typer.Option(help="By default a free port.")] = None,
    http_port: Annotated[int | None, typer.Option(help="By default a free port.")] = None,
    metrics_port: Annotated[int | None, typer.Option(help="By default a free port.")] = None,
    root: Root = None,
    as_json: Json = False,
) -> None:
    """Serve what lab 5 exported, until Ctrl-C.

    Starts Triton on lab 5's model repository and says where it listens: with --json in one line,
    as soon as it is ready.
    """
    check_loopback()
    workspace = open_workspace(Course.read(find_course(root)), dataset, profile)
    repository = workspace.read("serving/model_repository")
    features = workspace.folder / "serving" / "feature_repository"

    from multistage.serving.triton import LIVE_REPOSITORY, TritonServer

    # Inside of a callback of gRPC's an exception is lost, a flag is not.
    asked_to_stop = threading.Event()

    def stop(*_signal: object) -> None:
        asked_to_stop.set()
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    server = TritonServer(
        repository,
        host=host,
        grpc_port=grpc_port,
        http_port=http_port,
        metrics_port=metrics_port,
        environment={LIVE_REPOSITORY: str(features)} if features.is_dir() else {},
    )
    console = Console(stderr=True)
    try:
        with console.status("Starting Triton: it loads TensorFlow first") as status:

            def tell(waited: float) -> None:
                if asked_to_stop.is_set():
                    raise KeyboardInterrupt
                status.update(f"Starting Triton: {waited:.0f} s")

            server.start(tell)
        if as_json:
            urls = {"grpc": server.grpc_url, "http": server.http_url, "metrics": server.metrics_url}
            print(json.dumps({**urls, "pid": server.pid}), flush=True)
        else:
            print(f"ready  gRPC {server.grpc_url}  HTTP {server.http_url}  {server.metrics_url}")
            print(f"process {server.pid}; Ctrl-C stops it", flush=True)
        while server.running and not asked_to_stop.is_set():
            time.sleep(0.5)
        if asked_to_stop.is_set():
            raise KeyboardInterrupt
        raise CourseError(
            f"The server has ended. Start it again with lab serve.\n{server.log_errors}"
        )
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
    finally:
        server.stop()
