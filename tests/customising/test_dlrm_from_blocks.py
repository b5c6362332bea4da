"""Lab 3's DLRM from blocks is the stock one: same weights, same outputs."""

import merlin.models.tf as mm
import numpy as np
import pytest
import tensorflow as tf
from merlin.models.tf.blocks.dlrm import DotProductInteractionBlock
from merlin.schema import ColumnSchema, Schema, Tags

from tests.customising.conftest import definitions

SIZES = {"user": 50, "product": 30, "brand": 7, "hour": 24}


def column(name, size):
    domain = {"name": name, "min": 0, "max": size - 1}
    return ColumnSchema(name, dtype="int64", tags=[Tags.CATEGORICAL], properties={"domain": domain})


CATEGORIES = Schema([column(name, size) for name, size in SIZES.items()])
NUMBERS = Schema(
    [ColumnSchema(n, dtype="float32", tags=[Tags.CONTINUOUS]) for n in ("price", "age")]
)
TARGET = Schema(
    [ColumnSchema("target", dtype="int8", tags=[Tags.BINARY_CLASSIFICATION, Tags.TARGET])]
)


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    codes = {name: rng.integers(0, size, (256, 1)) for name, size in SIZES.items()}
    values = {name: rng.normal(size=(256, 1)).astype("float32") for name in NUMBERS.column_names}
    return {name: tf.constant(value) for name, value in {**codes, **values}.items()}


@pytest.fixture(scope="module")
def pair(batch):
    """The lab's model and the stock one, built."""
    lab = {
        "mm": mm,
        "tf": tf,
        "categories": CATEGORIES,
        "numbers": NUMBERS,
        "DotProductInteractionBlock": DotProductInteractionBlock,
    }
    for text in definitions({"inputs", "interaction", "from_blocks"}).values():
        exec(text, lab)
    tf.keras.utils.set_random_seed(1)
    stock = mm.DLRMModel(
        CATEGORIES + NUMBERS + TARGET,
        embeddings=mm.Embeddings(CATEGORIES, dim=8),
        bottom_block=mm.MLPBlock([64, 8]),
        top_block=mm.MLPBlock([64, 32]),
        prediction_tasks=mm.BinaryOutput("target"),
    )
    blocks = lab["from_blocks"]()
    stock(batch), blocks(batch)
    return blocks, stock


def test_it_has_the_weights_that_the_stock_model_has(pair):
    blocks, stock = pair
    assert blocks.count_params() == stock.count_params()
    assert [w.shape for w in blocks.get_weights()] == [w.shape for w in stock.get_weights()]


def test_with_copied_weights_it_says_the_same(pair, batch):
    blocks, stock = pair
    rng = np.random.default_rng(2)  # none zero, biases included: each weight has its say
    weights = [rng.normal(scale=0.3, size=w.shape) for w in stock.get_weights()]
    stock.set_weights(weights)
    before = np.asarray(blocks(batch))
    blocks.set_weights(weights)
    assert np.abs(before - np.asarray(stock(batch))).max() > 1e-2
    np.testing.assert_allclose(np.asarray(blocks(batch)), np.asarray(stock(batch)), atol=1e-5)
    assert np.asarray(blocks(batch)).std() > 1e-2
