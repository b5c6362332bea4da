"""The solved labs by papermill, in profile ci, on the simulated shop and on real ratings."""

import tempfile
from pathlib import Path

import nbformat
import pytest

from courseware.authoring.read import exercise_id
from multistage.workspace import Workspace
from tests.notebooks.conftest import PROFILE

# Inclusive bounds of every metric that issue and design promise.
SHARE = (0.0, 1.0)
FOUND = (1e-4, 1.0)  # something relevant was found
SKILL = (0.5, 1.0)  # better than chance
METRICS = {
    "01": {
        "interactions": (10_000, 1e9),
        "popularity_ndcg_at_10": FOUND,
        "pipeline_ndcg_at_10": FOUND,
    },
    "02": {
        f"auc_{name}": SKILL
        for name in ("bpr", "xgboost", "dlrm", "dcn", "wide_and_deep", "deep_fm")
    },
    "03": {
        **{f"auc_{name}": SKILL for name in ("blocks", "wide", "cross", "mixture", "gates")},
        "naive_reward": SHARE,
        "off_policy_reward": SHARE,
        "off_policy_gap": (1e-6, 1.0),  # the two intervals do not overlap
        "naive_coverage": SHARE,
        "off_policy_coverage": SHARE,
    },
    "04": {
        "retrieval_recall_at_100": (0.02, 1.0),
        "two_stage_ndcg_at_10": FOUND,
        "popularity_ndcg_at_10": FOUND,
        "als_ndcg_at_10": FOUND,
        "bpr_ndcg_at_10": FOUND,
        "knn_ndcg_at_10": FOUND,
        "ease_ndcg_at_10": FOUND,
    },
    "05": {"served_requests": (100, 1e6), "errors": (0, 0), "p50_ms": (0.1, 10_000)},
}
TRUTH = {"02": {"auc_oracle": SKILL}, "04": {"oracle_ndcg_at_10": FOUND}}

ADDRESSES = ("/simple/", "index-url", "find-links", "://localhost")


def test_every_section_passes(lab_run):
    assert lab_run.code == 0, lab_run.said
    states = {s["section"]: s["status"] for s in lab_run.summary["sections"]}
    assert list(states.values()) == ["passed"] * 5, lab_run.said
    assert lab_run.summary["device"]
    assert lab_run.summary["dataset"] == lab_run.dataset


def test_metrics_are_there_and_sane(lab_run):
    outside = [
        f"{section} {name} = {lab_run.metrics[section].get(name)}, expected {low} to {high}"
        for section, bounds in METRICS.items()
        for name, (low, high) in bounds.items()
        if not low <= lab_run.metrics[section].get(name, -1) <= high
    ]
    assert outside == []


def test_no_model_beats_the_shops_own_truth(store_run):
    metrics = store_run.metrics
    for section, bounds in TRUTH.items():
        for name, (low, high) in bounds.items():
            assert low <= metrics[section][name] <= high
    # The oracle is the best on average; on so few users luck may lift a model a little.
    ranker = max(metrics["02"][name] for name in METRICS["02"])
    assert ranker <= metrics["02"]["auc_oracle"] + 0.02
    assert metrics["04"]["two_stage_ndcg_at_10"] <= metrics["04"]["oracle_ndcg_at_10"] + 0.02


def test_outputs_name_no_path_and_no_address_of_this_machine(lab_run):
    paths = [f"{folder}/" for folder in (lab_run.course, Path.home(), tempfile.gettempdir())]
    found = []
    for file in sorted(lab_run.folder.glob("*.ipynb")):
        for index, cell in enumerate(nbformat.read(file, as_version=4).cells, 1):
            outputs = str(cell.get("outputs", ""))
            found += [
                f"{file.name}, cell {index}: {text}"
                for text in (*paths, *ADDRESSES)
                if text in outputs
            ]
    assert found == []


def test_artifacts_hold_no_path_no_address_and_no_lambda(lab_run):
    workspace = Workspace.open(lab_run.dataset, PROFILE, lab_run.course)
    forbidden = [f"{folder}/" for folder in (lab_run.course, Path.home(), tempfile.gettempdir())]
    forbidden += [*ADDRESSES, "<lambda>"]
    found = [
        f"{file.relative_to(workspace.folder)}: {text}"
        for name in workspace.artifacts()
        for file in sorted(workspace.read(name).rglob("*"))
        if file.is_file()
        for text in forbidden
        if text.encode() in file.read_bytes()
    ]
    assert found == []


def test_solutions_stay_solved(store_run):
    for file in sorted(store_run.folder.glob("*.ipynb")):
        cells = nbformat.read(file, as_version=4).cells
        assert any(exercise_id(cell) for cell in cells), file.name
        cards = [
            output.data["text/plain"]
            for cell in cells
            for output in cell.get("outputs", [])
            if "courseware-card" in output.get("data", {}).get("text/html", "")
        ]
        assert cards, file.name
        assert all(card.endswith(". Passed") for card in cards), file.name


def test_lab_5_serves_from_the_redis_that_is_named(movielens_run, redis_server):
    if redis_server is None:
        pytest.skip("redis-server is not installed")
    assert movielens_run.code == 0, movielens_run.said
    assert redis_server.keys() > 1_000  # users, and the products for the stock graph
    workspace = Workspace.open("movielens", PROFILE, movielens_run.course)
    repository = workspace.folder / "serving" / "feature_repository"
    assert (repository / "registry.db").exists()
    assert not (repository / "online.db").exists()
