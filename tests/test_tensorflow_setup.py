import subprocess
import sys

import nbformat
import pytest

from courseware.authoring.execute import execute
from courseware.records import read_records
from multistage.tensorflow_setup import create_weights, lean_tensorflow


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    cells = [
        "from courseware.records import record\n"
        "from multistage.tensorflow_setup import quiet\nquiet()",
        'record("auc", 1 / 3)\nrecord("count", 7)',
        'record("auc", 0.25)',
        'import logging; logging.getLogger("tensorflow").warning("noise")\n'
        'import warnings; warnings.warn("noise")',
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells])
    return execute(notebook, tmp_path_factory.mktemp("cwd"))


def test_records_are_read_back_and_the_last_one_counts(executed):
    assert read_records(executed) == {"auc": 0.25, "count": 7.0}


def test_a_record_is_seen_by_the_reader(executed):
    shown = [output["data"]["text/plain"] for output in executed.cells[1].outputs]
    assert shown == ["auc = 0.3333", "count = 7"]


def test_quiet_keeps_noise_out_of_outputs(executed):
    assert executed.cells[3].outputs == []


def test_a_notebook_without_records_has_none():
    cells = [nbformat.v4.new_code_cell("1 + 1"), nbformat.v4.new_markdown_cell("auc = 3")]
    assert read_records(nbformat.v4.new_notebook(cells=cells)) == {}


PROTOBUF = """
from multistage.tensorflow_setup import quiet
quiet()
import merlin.schema
from google.protobuf.internal import api_implementation
print(api_implementation.Type())
"""


def test_protobuf_stays_compiled_whatever_merlin_wrote_into_the_environment(monkeypatch):
    monkeypatch.setenv("PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION", "python")  # as a child finds it
    ended = subprocess.run([sys.executable, "-c", PROTOBUF], capture_output=True, check=True)
    assert ended.stdout.strip() != b"python"


def test_merlin_is_traced_as_written_and_a_layer_of_your_own_is_not(monkeypatch):
    import merlin.models.tf as mm
    import tensorflow as tf
    from tensorflow.python.autograph.core import config
    from tensorflow.python.autograph.impl.conversion import is_allowlisted

    class Own(tf.keras.layers.Layer):
        def call(self, inputs):
            return inputs

    monkeypatch.setattr(config, "CONVERSION_RULES", config.CONVERSION_RULES)
    monkeypatch.setattr(tf.data.Dataset, "__iter__", tf.data.Dataset.__iter__)
    lean_tensorflow()
    rules = config.CONVERSION_RULES
    lean_tensorflow()  # a cell that is run again
    assert config.CONVERSION_RULES is rules
    for written in (mm.MLPBlock, mm.Model.train_step, mm.Encoder.call):
        assert is_allowlisted(written)
    assert not is_allowlisted(Own.call)


def test_no_training_waits_for_the_thread_that_tunes_its_pipeline(monkeypatch):
    import tensorflow as tf

    plain = tf.data.Dataset.__iter__
    tuned = []

    def watched(dataset):
        tuned.append(dataset.options().autotune.enabled)
        return plain(dataset)

    monkeypatch.setattr(tf.data.Dataset, "__iter__", watched)
    lean_tensorflow()
    iterate = tf.data.Dataset.__iter__
    lean_tensorflow()  # a cell that is run again
    assert tf.data.Dataset.__iter__ is iterate

    model = tf.keras.Sequential([tf.keras.layers.Dense(1)])
    model.compile(loss="mse")
    model.fit(tf.ones((4, 2)), tf.ones((4, 1)), verbose=0)
    assert tuned == [False]


def test_a_built_model_is_traced_once_and_saves_the_names_of_its_inputs(tmp_path, monkeypatch):
    import merlin.models.tf as mm
    import pandas as pd
    import tensorflow as tf
    from merlin.io import Dataset
    from merlin.schema import ColumnSchema, Schema, Tags

    codes = {"domain": {"min": 0, "max": 4, "name": "product"}}
    answer = [Tags.BINARY_CLASSIFICATION, Tags.TARGET]
    schema = Schema(
        [
            ColumnSchema("product", dtype="int64", tags=[Tags.CATEGORICAL], properties=codes),
            ColumnSchema("price", dtype="float32", tags=[Tags.CONTINUOUS]),
            ColumnSchema("target", dtype="float32", tags=answer),
        ]
    )
    rows = pd.DataFrame({"product": [0, 1, 2, 3] * 4, "price": 0.5, "target": [0, 1] * 8})
    loader = mm.Loader(Dataset(rows, schema=schema), batch_size=4)
    traces = []
    train_step = mm.Model.train_step

    def counted(self, data):
        traces.append(data)
        return train_step(self, data)

    monkeypatch.setattr(mm.Model, "train_step", counted)
    features = mm.InputBlockV2(schema.without(["target"]))
    model = mm.Model(features, mm.MLPBlock([4]), mm.BinaryOutput("target"))
    model.compile(optimizer=tf.keras.optimizers.legacy.Adam(1e-2), metrics=[])
    create_weights(model, loader.peek()[0])
    model.fit(loader, epochs=2, verbose=0)
    assert len(traces) == 1

    model.save(str(tmp_path), include_optimizer=False)
    served = tf.saved_model.load(str(tmp_path)).signatures["serving_default"]
    assert served.structured_input_signature[1].keys() == {"product", "price"}
