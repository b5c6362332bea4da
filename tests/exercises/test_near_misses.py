"""Answers that are wrong only for unusual inputs: large ids, wide rows, near ties, tiny numbers."""

import numpy as np
import pytest

from courseware.exercises import Wrong
from courseware.exercises.engine import probe
from courseware.exercises.exercise import find_exercise
from courseware.exercises.source import changed

LATENCY = ' & (measured["ms"] <= most_ms)'


@pytest.mark.filterwarnings("ignore")  # exponentials that overflow
@pytest.mark.parametrize(
    ("exercise", "edits"),
    [
        ("3.2", {"return bins": "return bins if bins < 1_000_000 else None"}),
        ("3.4", {"log(allowed)": "log(tf.sign(allowed) * tf.maximum(allowed, 1e-9))"}),
        ("3.4", {"log(allowed)": "log(allowed / tf.reduce_sum(allowed, axis=1, keepdims=True))"}),
        ("3.4", {"(seed, 0)": "(abs(seed), 0)"}),
        ("3.5", {"top_k(y_pred": "top_k(tf.sigmoid(y_pred)"}),
        ("3.5", {"top_k(y_pred": "top_k(tf.nn.softmax(y_pred)"}),
        ("3.5", {"top_k(y_pred": "top_k(y_pred - 1e-6 * tf.range(float(self.products))"}),
        ("3.5", {"top_k(y_pred": "top_k(tf.round(100 * y_pred)"}),
        ("3.5", {"top_k(y_pred": "top_k(tf.cast(y_pred, tf.float16)"}),
        ("4.1", {"np.log(probability)": "np.log(probability + 1e-30)"}),
        ("4.1", {"np.log(probability)": "np.log(np.maximum(probability, 1e-30))"}),
        ("4.1", {"logits - ": "np.clip(logits, -1e4, 1e4) - "}),
        ("4.1", {"logits - ": "logits.astype('float32') - "}),
        ("4.2", {"-np.inf": "-1e12"}),
        ("4.2", {"-np.inf": "scores.min() - 1"}),
        ("4.2", {"[:k]": "[: max(0, min(k, len(scores) - len(mine)))]"}),
        ("4.2", {"products @ vector": "(products @ vector).astype('float32')"}),
        ("4.3", {"dtype=candidates.dtype": "dtype='int16'"}),
        ("4.4", {"fitting.sort": "fitting.round({'mib': 2}).sort"}),
        ("4.4", {'measured["recall"] >=': 'measured["recall"].round(4) >='}),
        ("4.4", {'measured["ms"] <=': 'measured["ms"].round(4) <='}),
        ("4.4", {'sort_values(["mib", "ms"]).index': 'reset_index().set_index("index").index'}),
        ("4.5", {"stage: ndcg[stage] -": "stage: round(ndcg[stage], 6) -"}),
        ("5.1", {"candidates.dtype)": "'int16')"}),
        ("5.2", {"candidates.copy()": "candidates.astype('int16')"}),
        ("5.3", {"/ temperature": "/ max(temperature, 1e-4)"}),
        ("5.3", {"/ temperature": "/ (temperature + 1e-8)"}),
        ("5.3", {"/ temperature": "/ min(temperature, 100)"}),
        ("5.3", {"logits / ": "logits.astype('float32') / "}),
        ("5.4", {"<= budget": "<= budget + 1e-6"}),
        ("5.4", {"(sum(gain for _, gain in costs)": "(round(sum(gain for _, gain in costs), 6)"}),
        ("5.4", {"-milliseconds": "-round(milliseconds, 2)"}),
        ("5.4", {"-milliseconds": "-round(milliseconds)"}),
    ],
)
def test_a_near_miss_is_refused(exercise, edits):
    with pytest.raises(Wrong) as refused:
        probe(find_exercise(exercise), changed(exercise, edits))
    assert repr(refused.value.got) != "'LabError'"


@pytest.mark.parametrize(
    ("exercise", "edits", "said"),
    [
        (
            "3.1",
            {"matmul(vectors, vectors": "matmul(*[tf.cast(vectors, tf.float64)] * 2"},
            "float64",
        ),
        ("3.2", {"return bins": "return float(bins)"}, "is a float, where an int is expected"),
        ("3.2", {"return 1\n": "return 0\n"}, "at least one bin"),
        ("3.3", {"log_new - log_old": "tf.cast(log_new - log_old, tf.float64)"}, "float64, where"),
        (
            "3.3",
            {"weight, cap)": "tf.reduce_mean(weight), cap)"},
            r"single number, where the shape \(4,\)",
        ),
        ("3.4", {"n, seed": "n, dtype=tf.int32, seed"}, "int32, where int64"),
        ("3.4", {"log(allowed)": "log(allowed ** 0.75)"}, "not drawn in proportion to their"),
        ("3.5", {"self.k).indices": "self.products).indices"}, "coverage after batch 1"),
    ],
)
def test_what_is_wrong_is_named_and_nothing_else(exercise, edits, said):
    with pytest.raises(Wrong, match=said):
        probe(find_exercise(exercise), changed(exercise, edits))


@pytest.mark.parametrize("factor", [100, 1_000, 1_024, 65_536, 1_000_000])
@pytest.mark.parametrize("exercise", ["5.1", "5.2"])
def test_one_number_for_a_user_and_a_product_is_refused(exercise, factor):
    keys = f"[row * {factor} + p for p in ids]"
    seen = f"[u * {factor} + p for u, s in enumerate(seen) for p in s]"
    edits = {
        "5.1": {"np.isin(ids, mine)": f"np.isin({keys}, {seen})"},
        "5.2": {
            "np.isin(popular, np.concatenate([there, mine]))": (
                f"(np.isin(popular, there) | np.isin(popular + row * {factor}, {seen}))"
            )
        },
    }
    with pytest.raises(Wrong, match="wrong value"):
        probe(find_exercise(exercise), changed(exercise, edits[exercise]))


def test_rows_are_wide_enough_to_notice_a_sort_that_does_not_keep_the_order():
    def unstable(candidates, seen, keep):
        wide = np.full((len(candidates), keep), -1)
        for row, (ids, mine) in enumerate(zip(candidates, seen, strict=True)):
            gone = np.isin(ids, mine) | (ids == -1)
            left = ids[np.argsort(gone, kind="quicksort")][: min(keep, (~gone).sum())]
            wide[row, : len(left)] = left
        return wide

    with pytest.raises(Wrong, match="wrong value"):
        probe(find_exercise("5.1"), unstable)


def test_a_later_draw_that_ignores_the_temperature_is_refused():
    def softmax(logits):
        weights = np.exp(logits - logits.max())
        return weights / weights.sum()

    def draws(place):
        def answer(logits, temperature, k, rng):
            left, drawn = np.arange(len(logits)), []
            for number in range(k):
                scale = 1 if number == place else temperature
                drawn.append(rng.choice(left, p=softmax(logits[left] / scale)))
                left = left[left != drawn[-1]]
            return np.array(drawn)

        return answer

    probe(find_exercise("5.3"), draws(place=None))
    for place in (1, 2):
        with pytest.raises(Wrong, match="a later draw"):
            probe(find_exercise("5.3"), draws(place))


@pytest.mark.parametrize("exercise", ["4.4", "5.4"])
def test_none_where_it_may_be_meant_is_no_forgotten_return(exercise):
    with pytest.raises(Wrong, match="The result is None, but") as refused:
        probe(find_exercise(exercise), lambda *arguments: None)
    assert "forget" not in refused.value.message


@pytest.mark.filterwarnings("ignore")
def test_a_probability_that_became_0_is_told_of():
    softmax = "np.exp(corrected - highest) / np.exp(corrected - highest).sum(axis=1, keepdims=True)"
    answer = changed("4.1", {"log_total - np.diag(corrected)": f"-np.log(np.diag({softmax}))"})
    with pytest.raises(Wrong, match="a probability becomes 0 before its logarithm"):
        probe(find_exercise("4.1"), answer)
