"""A Keras model, saved, and called as the server calls it."""

import numpy as np
import pytest
import tensorflow as tf

from multistage.serving.saved_model import SavedModel


@pytest.fixture(scope="module")
def model():
    """An embedding and a number, through two layers; the number's input has rank 1."""
    tf.keras.utils.set_random_seed(0)
    code = tf.keras.Input((1,), dtype="int64", name="code")
    number = tf.keras.Input((), dtype="float32", name="number")
    joined = tf.keras.layers.Concatenate()(
        [tf.keras.layers.Embedding(20, 30)(code)[:, 0], number[:, None]]
    )
    hidden = tf.keras.layers.Dense(40, "tanh")(joined)
    return tf.keras.Model([code, number], tf.keras.layers.Dense(3)(hidden))


@pytest.fixture(scope="module")
def saved(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "model"
    model.save(folder)
    return SavedModel(folder)


def columns(rows):
    rng = np.random.default_rng(rows)
    return {"code": rng.integers(0, 20, rows), "number": rng.normal(size=rows)}


def test_it_answers_as_the_model_does(model, saved):
    data = columns(70)
    wanted = model([data["code"][:, None], data["number"]]).numpy()
    answer = saved(data | {"another": np.zeros(70)})
    assert answer.shape == (70, 3)
    assert answer.dtype == "float32"
    assert np.allclose(answer, wanted, atol=1e-6)  # a few roundings of 32 bits


def test_its_inputs_and_output(saved):
    assert saved.inputs == {"code": np.int64, "number": np.float32}
    assert saved.output_width == 3


@pytest.mark.parametrize("rows", [1, 2, 7, 47, 48, 49])
def test_a_row_does_not_depend_on_the_rows_beside_it(saved, rows):
    data = columns(100)
    some = saved({name: column[:rows] for name, column in data.items()})
    assert np.array_equal(some, saved(data)[:rows])


def test_columns_are_spread_over_the_rows(saved):
    """One code per user, one number per candidate: as if each row had been written out."""
    code, number = columns(3)["code"], columns(12)["number"].reshape(3, 4)
    answer = saved({"code": code[:, None], "number": number}, (3, 4))
    rows = saved({"code": np.repeat(code, 4), "number": number.ravel()})
    assert answer.shape == (3, 4, 3)
    assert np.array_equal(answer.reshape(12, 3), rows)


def test_no_rows(saved):
    assert saved(columns(0)).shape == (0, 3)


def test_a_missing_column_is_named(saved):
    with pytest.raises(KeyError, match="number"):
        saved({"code": np.zeros(2, "int64")})


def test_an_operation_that_only_tensorflow_has(tmp_path):
    code = tf.keras.Input((1,), dtype="int64", name="code")
    hashed = tf.keras.layers.Hashing(50)(code)
    model = tf.keras.Model(code, tf.keras.layers.Embedding(50, 3)(hashed)[:, 0])
    model.save(tmp_path / "model")
    codes = np.arange(20)
    answer = SavedModel(tmp_path / "model")({"code": codes})
    assert np.array_equal(answer, model(codes[:, None]).numpy())
