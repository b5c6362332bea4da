"""``lab serve`` on a course that lab 5 has exported from."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import psutil
import pytest
from conftest import CANDIDATES, NOON
from lab_5 import four_stages
from standin import QUERY_DIM, write_index

from multistage.serving.client import Client
from multistage.serving.runtime import ServingRuntime


@pytest.fixture(scope="module")
def exported(workspace, exports, tmp_path_factory):
    """Lab 5's export, with an index that has fewer products than a user is offered."""
    few = tmp_path_factory.mktemp("few") / "inputs"
    shutil.copytree(exports, few)
    items = pd.read_parquet(exports / "item_features" / "item_features.parquet")
    ids = items["product_id"].to_numpy()[5:7]
    write_index(few / "index" / "index.faiss", np.ones((2, QUERY_DIM), "float32"), ids)
    with workspace.write("serving/model_repository", producer="05-deployment") as folder:
        four_stages(few, CANDIDATES).export(folder, runtime=ServingRuntime())
    return workspace


def lab_serve(workspace):
    command = [sys.executable, "-m", "courseware.lab", "serve", "--profile", "ci", "--json"]
    return subprocess.Popen(
        [*command, "--root", str(workspace.course)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"TERM": "dumb"},
    )


def test_it_serves_says_so_when_the_server_is_killed_and_ends(exported, user_features):
    process = lab_serve(exported)
    try:
        line = process.stdout.readline()
        assert line, process.stderr.read()
        ready = json.loads(line)
        with Client(ready["grpc"]) as client:
            users = user_features["user_id"].to_numpy()[:2]
            reply = client.recommend(users, time=NOON)
            assert reply.statuses == ["personal"] * 2
            assert (reply.ordered_ids > 0).all()
            assert all(np.unique(row).size == row.size for row in reply.ordered_ids)
        os.kill(ready["pid"], signal.SIGKILL)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 1
    assert "The server has ended" in errors
    assert "Traceback" not in errors


def test_interrupted_it_leaves_no_server(exported):
    process = lab_serve(exported)
    try:
        time.sleep(4)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert "Traceback" not in errors
    lines = [" ".join(p.info["cmdline"] or []) for p in psutil.process_iter(["cmdline"])]
    assert not [line for line in lines if str(exported.course) in line]


def test_without_an_export_it_names_the_section_to_run(workspace, course, tmp_path):
    shutil.copy(course / "course.toml", tmp_path)
    command = [sys.executable, "-m", "courseware.lab", "serve", "--profile", "ci"]
    ended = subprocess.run(
        [*command, "--root", str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 1
    assert "--section 5" in ended.stderr
