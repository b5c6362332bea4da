"""Lab 3's own layer, loss, sampler and metric: exact, saved and loaded elsewhere, both floats."""

import json
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from merlin.models.tf.utils import testing_utils

FLOATS = ("float32", "float64")


def fields(dtype="float32", seed=0):
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=(5, 4)).astype(dtype) for name in ("brand", "user", "hour")}


@pytest.fixture
def made(parts):
    """One of each part, with no argument at its default."""
    return {
        "gates": parts.FieldGates(reduction=2),
        "mixture": parts.CrossMixture(depth=1, experts=3, rank=2),
        "negatives": parts.MixedNegatives([0, 1, 2], per_positive=2, item="shown", seed=3),
        "coverage": parts.Coverage(k=2, products=7),
        "loss": parts.OffPolicyLoss(cap=4.0),
    }


@pytest.mark.parametrize("name", ["gates", "mixture", "negatives", "coverage", "loss"])
def test_a_part_comes_back_from_its_config(made, name):
    copy = testing_utils.assert_serialization(made[name])
    assert copy.get_config() == made[name].get_config()


def test_all_parts_survive_save_and_load_in_another_process(parts, module, tmp_path):
    inputs = {name: tf.keras.Input((4,), name=name) for name in fields()}
    crossed = parts.CrossMixture(experts=2, rank=3)(
        tf.keras.layers.Concatenate()(list(parts.FieldGates()(inputs).values()))
    )
    model = tf.keras.Model(inputs, tf.keras.layers.Dense(6)(crossed))
    model.compile(loss=parts.OffPolicyLoss(cap=5.0), metrics=[parts.Coverage(2, 6)])
    model.fit(fields(), np.eye(6)[:5] * 20, epochs=2, verbose=0)
    sampler = parts.MixedNegatives([0, 1, 2, 3], per_positive=2, item="shown", seed=3)
    model.save(tmp_path / "model")
    (tmp_path / "sampler.json").write_text(json.dumps(sampler.get_config()))
    script = """
import json, sys
import numpy as np, tensorflow as tf, lab3_parts
model = tf.keras.models.load_model("model")
rng = np.random.default_rng(0)
for dtype in ("float32", "float64"):
    rng = np.random.default_rng(0)
    x = {name: rng.normal(size=(5, 4)).astype(dtype) for name in ("brand", "user", "hour")}
    print(json.dumps(model.predict(x, verbose=0).tolist()))
print(json.dumps(model.evaluate(x, np.eye(6)[:5] * 20, verbose=0)))
sampler = lab3_parts.MixedNegatives.from_config(json.load(open("sampler.json")))
rows, targets = sampler({"shown": tf.constant([1, 2], tf.int64)}, tf.constant([1, 1]))
print(json.dumps(rows["shown"].numpy().tolist()))
print(model.loss.cap)
"""
    said = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env={"PYTHONPATH": str(module.parent), "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
    )
    assert said.returncode == 0, said.stderr
    *answers, cap = said.stdout.splitlines()
    single, double, scores, drawn = map(json.loads, answers)
    here = model.predict(fields(), verbose=0)
    np.testing.assert_allclose(single, here, rtol=1e-5)
    np.testing.assert_allclose(double, here, rtol=1e-5)
    np.testing.assert_allclose(
        scores, model.evaluate(fields(), np.eye(6)[:5] * 20, verbose=0), rtol=1e-4
    )
    rows, _ = sampler({"shown": tf.constant([1, 2], tf.int64)}, tf.constant([1, 1]))
    assert drawn == rows["shown"].numpy().tolist()
    assert float(cap) == 5.0


def test_a_merlin_model_with_our_layers_trains_saves_and_loads(parts):
    import merlin.models.tf as mm
    import pandas as pd
    from merlin.io import Dataset
    from merlin.schema import ColumnSchema, Schema, Tags

    rng = np.random.default_rng(0)
    domain = {"domain": {"min": 0, "max": 9}}
    columns = [
        ColumnSchema(n, dtype=np.int64, tags=[Tags.CATEGORICAL], properties=domain)
        for n in ("user", "brand", "hour")
    ]
    columns.append(
        ColumnSchema("target", dtype=np.int8, tags=[Tags.BINARY_CLASSIFICATION, Tags.TARGET])
    )
    table = pd.DataFrame({n: rng.integers(0, 10, 200) for n in ("user", "brand", "hour")})
    table["target"] = rng.integers(0, 2, 200).astype("int8")
    data = Dataset(table, schema=Schema(columns))
    categories = data.schema.select_by_tag(Tags.CATEGORICAL)
    vectors = mm.ParallelBlock({"embeddings": mm.Embeddings(categories, dim=4)}, is_input=True)
    block = vectors.connect(
        parts.FieldGates(), mm.MLPBlock([4]), parts.CrossMixture(experts=2, rank=2)
    )
    model = mm.Model(block, mm.BinaryOutput("target"))
    testing_utils.model_test(model, data, run_eagerly=False, reload_model=True)


# --- the layers


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("own", FLOATS)
def test_untrained_gates_change_nothing(parts, dtype, own):
    vectors = fields(dtype)
    gated = parts.FieldGates(dtype=own)(vectors)
    assert set(gated) == set(vectors)
    for name, values in gated.items():
        assert values.dtype == own
        np.testing.assert_allclose(values, vectors[name], rtol=1e-6)


def test_gates_against_numpy(parts):
    vectors = fields()
    layer = parts.FieldGates(reduction=1)
    layer(vectors)
    rng = np.random.default_rng(1)
    squeeze, excite = (rng.normal(size=(3, 3)).astype("float32") for _ in range(2))
    layer.set_weights([squeeze, excite])
    names = sorted(vectors)
    stacked = np.stack([vectors[name] for name in names], axis=1)
    gates = 2 / (1 + np.exp(-np.tanh(stacked.mean(axis=2) @ squeeze) @ excite))
    for i, name in enumerate(names):
        np.testing.assert_allclose(layer(vectors)[name], vectors[name] * gates[:, [i]], rtol=1e-5)


@pytest.mark.parametrize("dtype", FLOATS)
def test_mixture_passes_merlins_layer_test(parts, dtype):
    kwargs = {"experts": 2, "rank": 3, "dtype": dtype}
    testing_utils.layer_test(
        parts.CrossMixture, kwargs=kwargs, input_shape=(6, 5), input_dtype=dtype
    )


def test_one_layer_of_the_mixture_against_numpy(parts):
    x = fields()["user"]
    layer = parts.CrossMixture(depth=1, experts=3, rank=2)
    layer(x)
    rng = np.random.default_rng(2)
    values = [rng.normal(size=w.shape).astype("float32") for w in layer.weights]
    layer.set_weights(values)
    gate, down, turn, up, bias = values
    odds = np.exp(x @ gate)
    odds /= odds.sum(axis=1, keepdims=True)
    expected = x.copy()
    for i in range(3):
        inner = np.tanh(np.tanh(x @ down[i]) @ turn[i])
        expected += odds[:, [i]] * x * (inner @ up[i] + bias)
    np.testing.assert_allclose(layer(x), expected, rtol=1e-4, atol=1e-5)


# --- the loss


@pytest.mark.parametrize("dtype", FLOATS)
def test_the_loss_against_numpy(parts, dtype):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(4, 3)).astype(dtype)
    old = np.array([0.9, 0.02, 0.3, 0.001])
    what = np.array([0, 2, 1, 1])
    y_true = (np.eye(3)[what] / old[:, None]).astype(dtype)
    policy = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    new = policy[np.arange(4), what]
    expected = -np.mean(np.minimum(new / old, 5) * np.log(new))
    assert float(parts.OffPolicyLoss(cap=5.0)(y_true, logits)) == pytest.approx(expected, rel=1e-5)


def test_the_loss_has_the_gradient_of_a_policy(parts):
    logits = tf.Variable([[0.3, -0.2, 0.1]])
    with tf.GradientTape() as tape:
        loss = parts.OffPolicyLoss(cap=100.0)(tf.constant([[0.0, 4.0, 0.0]]), logits)
    policy = tf.nn.softmax(logits)[0].numpy()
    # d pi / d logits = pi * (one - pi): the gradient of 4 * pi(1), up to its sign
    expected = -4 * policy[1] * (np.eye(3)[1] - policy)
    np.testing.assert_allclose(tape.gradient(loss, logits)[0], expected, rtol=1e-5)


def test_correction_finds_the_best_product_where_the_log_hides_it(parts):
    """Planted: product 0 is shown 19 times in 20 and sells rarely, product 1 sells always."""
    shown, sells = np.array([0.95, 0.05]), np.array([0.2, 0.9])
    rng = np.random.default_rng(0)
    what = rng.choice(2, 4_000, p=shown)
    what = what[rng.random(4_000) < sells[what]]

    def learn(loss, worth):
        logits = tf.Variable([[0.0, 0.0]])
        y_true = tf.one_hot(what, 2) * tf.constant(worth[what], tf.float32)[:, None]
        for _ in range(60):
            with tf.GradientTape() as tape:
                value = loss(y_true, tf.repeat(logits, len(what), axis=0))
            logits.assign_sub(2.0 * tape.gradient(value, logits))
        return tf.nn.softmax(logits)[0].numpy()

    naive = learn(tf.keras.losses.CategoricalCrossentropy(from_logits=True), np.ones(2))
    corrected = learn(parts.OffPolicyLoss(cap=10.0), 1 / shown)
    assert naive @ sells < 0.4
    assert corrected @ sells > 0.8


# --- the sampler


def test_a_batch_with_negatives(parts):
    sampler = parts.MixedNegatives([0, 1, 5, 2], per_positive=3, item="shown")
    rows = {"user": tf.constant([7, 8], tf.int64), "shown": tf.constant([2, 1], tf.int64)}
    outputs, targets = sampler(rows, tf.constant([1, 1], tf.int8))
    assert outputs["user"].numpy().tolist() == [7, 8, 7, 7, 7, 8, 8, 8]
    assert targets.numpy().tolist() == [1, 1, 0, 0, 0, 0, 0, 0]
    assert outputs["shown"].numpy()[:2].tolist() == [2, 1]
    assert 2 not in outputs["shown"].numpy()[2:5]
    assert not {0, 1} & set(outputs["shown"].numpy()[5:].tolist())


@pytest.mark.parametrize("shape", [(-1,), (-1, 1)])
def test_negatives_come_in_proportion_and_differ_from_batch_to_batch(parts, shape):
    weights = np.array([0, 1.0, 5, 2, 4])
    sampler = parts.MixedNegatives(weights, per_positive=50, item="shown", seed=1)
    positives = tf.reshape(tf.constant([2] * 200 + [4] * 200, tf.int64), shape)
    batches = []
    for _ in range(3):
        rows, _ = sampler({"shown": positives}, tf.ones_like(positives))
        batches.append(rows["shown"].numpy().reshape(-1)[400:].reshape(400, 50))
    assert not np.array_equal(batches[0], batches[1])
    for rows, own in ((slice(0, 200), 2), (slice(200, 400), 4)):
        drawn = np.concatenate([batch[rows].ravel() for batch in batches])
        expected = np.where(np.arange(5) == own, 0, weights)
        share = np.bincount(drawn, minlength=5) / len(drawn)
        np.testing.assert_allclose(share, expected / expected.sum(), atol=0.015)
        assert share[own] == 0


# --- the metric


@pytest.mark.parametrize("dtype", FLOATS)
def test_coverage_is_exact_for_any_cut_into_batches(parts, dtype):
    scores = np.random.default_rng(0).normal(size=(23, 90)).astype(dtype)
    right = len(np.unique(np.argsort(-scores, axis=1)[:, :3])) / 90
    metric = parts.Coverage(3, 90)
    for cuts in (1, 2, 5, 23):
        metric.reset_state()
        assert float(metric.result()) == 0
        for batch in np.array_split(scores, cuts):
            metric.update_state(None, batch)
        assert float(metric.result()) == pytest.approx(right)


def test_coverage_in_a_graph_and_from_epoch_to_epoch(parts):
    inputs = tf.keras.Input((5,))
    model = tf.keras.Model(inputs, inputs)
    model.compile(loss="mse", metrics=[parts.Coverage(1, 5)])
    wide, narrow = np.eye(5), np.eye(5)[[0, 0, 0]]
    assert model.evaluate(wide, wide, batch_size=2, verbose=0)[1] == pytest.approx(1.0)
    assert model.evaluate(narrow, narrow, batch_size=2, verbose=0)[1] == pytest.approx(0.2)


def test_a_cell_that_is_run_again_replaces_its_class(module):
    scope = {}
    for _ in range(2):
        exec(compile(module.read_text(), "parts", "exec"), scope)
    config = tf.keras.utils.serialize_keras_object(scope["FieldGates"]())
    again = tf.keras.utils.deserialize_keras_object(
        config, module_objects=tf.keras.utils.get_custom_objects()
    )
    assert type(again) is scope["FieldGates"]
