"""The artifacts that the graph reads, gathered in one folder."""

import shutil
from pathlib import Path

from multistage.workspace import Workspace

SECTION = "05-deployment"
EXPORTS = (
    "query_tower",
    "ranker",
    "index",
    "item_embeddings",
    "ease",
    "item_features",
    "popularity",
    "context",
)
INPUTS = "serving/inputs"


def gather_exports(workspace: Workspace, feature_repository: Path) -> Path:
    """Return a folder that holds section 4's exports, verified, and the feature repository.

    Args:
        workspace: with the artifacts ``export/*`` of section 4.
        feature_repository: a filled Feast repository; it is copied.

    Raises:
        ArtifactError: if an export is missing or damaged; the message says how to make it again.
    """
    with workspace.write(INPUTS, SECTION) as folder:
        for name in EXPORTS:
            shutil.copytree(workspace.read(f"export/{name}"), folder / name)
            (folder / name / "manifest.json").unlink()
        shutil.copytree(feature_repository, folder / "feature_repository")
    return workspace.read(INPUTS)
