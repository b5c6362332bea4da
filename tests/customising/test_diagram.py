"""The picture of a model has what the model has, in its order."""

import matplotlib
import merlin.models.tf as mm
import numpy as np
import pytest
from merlin.schema import ColumnSchema, Schema, Tags

from multistage.customising import draw, outline

matplotlib.use("Agg")
DOMAIN = {"domain": {"min": 0, "max": 9}}
SCHEMA = Schema(
    [
        ColumnSchema(name, dtype=np.int64, tags=[Tags.CATEGORICAL], properties=DOMAIN)
        for name in ("user", "brand", "hour")
    ]
    + [ColumnSchema("price", dtype=np.float32, tags=[Tags.CONTINUOUS])]
)


@pytest.fixture
def model():
    numbers = SCHEMA.select_by_tag(Tags.CONTINUOUS)
    bottom = mm.ContinuousFeatures.from_schema(numbers).connect(mm.MLPBlock([8, 4]))
    embeddings = mm.Embeddings(SCHEMA.select_by_tag(Tags.CATEGORICAL), dim=4)
    inputs = mm.ParallelBlock({"embeddings": embeddings, "bottom": bottom}, is_input=True)
    body = inputs.connect_with_shortcut(
        mm.MLPBlock([6]), shortcut_filter=mm.Filter("bottom"), aggregation="concat"
    )
    return mm.Model(body.connect(mm.MLPBlock([5])), mm.BinaryOutput("target"))


def test_the_boxes_are_the_models_layers(model):
    boxes = [label.replace("\n", " ") for label in outline(model).leaves]
    tables = [f"EmbeddingTable {name} → 4" for name in ("user", "brand", "hour")]
    assert boxes[:3] == tables
    assert boxes[3:6] == ["ContinuousFeatures", "Dense 8", "Dense 4"]
    assert set(boxes[6:8]) == {"Dense 6", "Filter bottom"}
    assert boxes[8:] == ["Dense 5", "BinaryOutput"]


def test_a_drawing_shows_every_box(model):
    shown = [text.get_text() for text in draw(model).axes[0].texts if text.get_text()]
    assert sorted(shown) == sorted(outline(model).leaves)
