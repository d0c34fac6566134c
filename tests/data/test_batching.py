"""Batches and validation windows: worked examples, and properties for any text, batch size and window."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quickfox.data.batching import StreamBatches, ValidationWindow, count_validation_segments, iter_validation_windows
from quickfox.errors import DataError, ExitStatus

SEEDS = st.integers(0, 2**63 - 1)


def text_of(n: int) -> np.ndarray:
    """A text whose tokens are their positions."""
    return np.arange(n, dtype=np.uint16)


def seed_with_phase(phase: int, n: int) -> int:
    """A random seed with which stream 0 starts at `phase` in a text of n tokens."""
    return next(s for s in itertools.count() if StreamBatches(text_of(n), 1, 1, s).batch(0)[0][0, 0] == phase)


def test_streams_worked_example():
    batches = StreamBatches(text_of(12), batch_size=2, window=3, random_seed=seed_with_phase(2, 12))
    x, y = batches.batch(0)
    assert x.tolist() == [[2, 3, 4], [8, 9, 10]]
    assert y.tolist() == [[3, 4, 5], [9, 10, 11]]
    x, y = batches.batch(1)
    assert x.tolist() == [[5, 6, 7], [11, 0, 1]]  # stream 1 continues at the start of the text
    assert y.tolist() == [[6, 7, 8], [0, 1, 2]]
    assert batches.steps_per_epoch == 2.0
    assert x.dtype == y.dtype == np.int32


def test_steps_per_epoch_may_be_fractional():
    assert StreamBatches(text_of(10), batch_size=2, window=4, random_seed=0).steps_per_epoch == 1.25


def test_with_more_streams_than_tokens_all_rows_are_equal():
    x, _ = StreamBatches(text_of(3), batch_size=5, window=2, random_seed=1).batch(7)
    assert (x == x[0]).all()


def test_a_step_beyond_64_bits():
    batches = StreamBatches(text_of(10), batch_size=1, window=3, random_seed=4)
    far = batches.batch(10 * 2**80 + 1)
    near = batches.batch(1)
    assert np.array_equal(far, near)


def test_the_phase_depends_on_the_seed():
    starts = {int(StreamBatches(text_of(1000), 1, 1, seed).batch(0)[0][0, 0]) for seed in range(50)}
    assert len(starts) > 40


def test_the_phase_of_a_seed_never_changes():
    """Golden values: a run must resume at the same position with any NumPy version."""
    starts = [int(StreamBatches(text_of(1000), 1, 1, seed).batch(0)[0][0, 0]) for seed in (0, 1, 2**63 - 1)]
    assert starts == [774, 31, 142]


@pytest.mark.parametrize("n", [0, 1, 5])
def test_a_text_shorter_than_a_window(n):
    with pytest.raises(DataError, match=rf"has {n} tokens, but a window of 5 needs at least 6") as failure:
        StreamBatches(text_of(n), batch_size=1, window=5, random_seed=0)
    assert failure.value.exit_status == ExitStatus.BAD_DATA == 65


def test_the_shortest_text():
    x, y = StreamBatches(text_of(6), 1, 5, seed_with_phase(0, 6)).batch(0)
    assert x.tolist() == [[0, 1, 2, 3, 4]]
    assert y.tolist() == [[1, 2, 3, 4, 5]]


@st.composite
def stream_settings(draw):
    window = draw(st.integers(1, 12))
    return draw(st.integers(window + 1, 200)), draw(st.integers(1, 9)), window, draw(SEEDS)


@given(stream_settings(), st.lists(st.integers(0, 10**6), min_size=1, max_size=5))
def test_a_batch_depends_only_on_seed_and_step(settings, steps):
    n, batch_size, window, seed = settings
    one = StreamBatches(text_of(n), batch_size, window, seed)
    in_order = {step: one.batch(step) for step in sorted(steps)}
    for step in reversed(steps):
        fresh = StreamBatches(text_of(n), batch_size, window, seed).batch(step)
        assert np.array_equal(fresh, in_order[step])


@given(stream_settings(), st.integers(0, 10**6))
def test_targets_are_the_next_tokens_and_streams_have_no_gaps(settings, step):
    n, batch_size, window, seed = settings
    batches = StreamBatches(text_of(n), batch_size, window, seed)
    x, y = batches.batch(step)
    assert x.shape == y.shape == (batch_size, window)
    assert np.array_equal(y, (x + 1) % n)
    next_x, _ = batches.batch(step + 1)
    assert np.array_equal(next_x[:, 0], y[:, -1])


@given(stream_settings())
def test_positions_of_the_streams_are_as_documented(settings):
    n, batch_size, window, seed = settings
    x, _ = StreamBatches(text_of(n), batch_size, window, seed).batch(3)
    phase = int(StreamBatches(text_of(n), 1, window, seed).batch(0)[0][0, 0])
    for b, t in itertools.product(range(batch_size), range(window)):
        assert x[b, t] == (phase + b * (n // batch_size) + 3 * window + t) % n


@given(st.integers(1, 6), st.integers(1, 6), st.integers(2, 6), SEEDS, st.integers(0, 50))
def test_every_token_occurs_once_per_epoch(batch_size, window, steps, seed, first):
    n = batch_size * window * steps
    batches = StreamBatches(text_of(n), batch_size, window, seed)
    assert batches.steps_per_epoch == steps
    epoch = [batches.batch(step) for step in range(first, first + steps)]
    for arrays in zip(*epoch, strict=True):  # the inputs, then the targets
        assert sorted(np.concatenate(arrays).ravel()) == list(range(n))


@given(stream_settings())
def test_every_token_occurs_equally_often_in_fractional_epochs(settings):
    n, batch_size, window, seed = settings
    batches = StreamBatches(text_of(n), batch_size, window, seed)
    targets = np.concatenate([batches.batch(step)[1] for step in range(n)])
    assert (np.bincount(targets.ravel(), minlength=n) == batch_size * window).all()


# Validation windows.


def windows_of(n: int, max_segments: int, window: int, warm_up: int) -> list[ValidationWindow]:
    return list(iter_validation_windows(text_of(n), max_segments, window, warm_up))


def test_one_segment_worked_example():
    windows = windows_of(6, max_segments=1, window=2, warm_up=4)
    assert [w.x.tolist() for w in windows] == [[[0, 1]], [[2, 3]], [[4, 4]]]
    assert [w.y.tolist() for w in windows] == [[[1, 2]], [[3, 4]], [[5, 5]]]
    assert [w.weight.tolist() for w in windows] == [[[1, 1]], [[1, 1]], [[1, 0]]]
    assert [w.reset_first for w in windows] == [True, False, False]


def test_two_segments_worked_example():
    windows = windows_of(9, max_segments=2, window=2, warm_up=2)
    assert [w.x.tolist() for w in windows] == [[[0, 0], [2, 3]], [[0, 1], [4, 5]], [[2, 3], [6, 7]]]
    assert [w.y.tolist() for w in windows] == [[[1, 1], [3, 4]], [[1, 2], [5, 6]], [[3, 4], [7, 8]]]
    assert [w.weight.tolist() for w in windows] == [[[0, 0], [0, 0]], [[1, 1], [1, 1]], [[1, 1], [1, 1]]]
    assert [w.reset_first for w in windows] == [False, True, False]


@pytest.mark.parametrize(
    ("num_tokens", "max_segments", "warm_up", "expected"),
    [
        (101, 4, 20, 4),
        (101, 5, 20, 5),
        (101, 8, 20, 5),  # 100 targets are 5 segments of 20
        (101, 8, 60, 1),
        (101, 8, 200, 1),
        (4, 8, 0, 3),  # no segment is empty
        (1, 8, 4, 1),
    ],
)
def test_count_validation_segments(num_tokens, max_segments, warm_up, expected):
    assert count_validation_segments(num_tokens, max_segments, warm_up) == expected


@pytest.mark.parametrize("n", [0, 1])
def test_a_validation_text_without_a_target(n):
    with pytest.raises(DataError, match=f"at least 2 tokens .* this one has {n}"):
        windows_of(n, max_segments=4, window=2, warm_up=2)


def test_the_shortest_validation_text():
    (window,) = windows_of(2, max_segments=4, window=3, warm_up=6)
    assert window.weight.tolist() == [[1, 0, 0]]
    assert window.y[0, 0] == 1


@st.composite
def validation_settings(draw):
    window = draw(st.integers(1, 8))
    return draw(st.integers(2, 300)), draw(st.integers(1, 9)), window, window * draw(st.integers(0, 5))


@given(validation_settings())
def test_every_token_but_the_first_is_a_target_exactly_once(settings):
    n = settings[0]
    weights = np.zeros(n)
    for window in windows_of(*settings):
        counted = window.weight == 1
        assert (counted | (window.weight == 0)).all()
        np.add.at(weights, window.y[counted], 1)
        assert np.array_equal(window.y, window.x + 1)
    assert weights.tolist() == [0.0] + [1.0] * (n - 1)


@given(validation_settings())
def test_windows_have_one_shape_and_one_reset(settings):
    n, max_segments, window_length, warm_up = settings
    windows = windows_of(*settings)
    segments = count_validation_segments(n, max_segments, warm_up)
    assert {(w.x.shape, w.y.shape, w.weight.shape) for w in windows} == {((segments, window_length),) * 3}
    assert {(w.x.dtype, w.y.dtype, w.weight.dtype) for w in windows} == {
        (np.dtype("i4"), np.dtype("i4"), np.dtype("f4"))
    }
    resets = [w.reset_first for w in windows]
    assert resets.index(True) == (0 if segments == 1 else warm_up // window_length)
    assert sum(resets) == 1


@given(validation_settings())
def test_each_target_has_a_history_of_at_least_the_warm_up(settings):
    """Replays the tokens that the state of each segment has seen."""
    n, max_segments, _, warm_up = settings
    histories = [[] for _ in range(count_validation_segments(n, max_segments, warm_up))]
    for window in windows_of(*settings):
        if window.reset_first:
            histories[0].clear()
        for history, xs, weights in zip(histories, window.x.tolist(), window.weight, strict=True):
            for x, weight in zip(xs, weights, strict=True):
                history.append(x)
                if weight:
                    assert history == list(range(history[0], x + 1))  # without a gap
                    assert history[0] == 0 or len(history) > warm_up
    assert histories[0][0] == 0


@given(validation_settings())
def test_several_segments_have_the_losses_of_one(settings):
    """With a model that depends on no more tokens than the warm-up (the sum of the last ones)."""
    n, max_segments, window_length, warm_up = settings
    ids = np.random.default_rng(n).integers(0, 7, n).astype(np.uint8)

    def losses(max_segments: int) -> list[float]:
        memories = [[] for _ in range(count_validation_segments(n, max_segments, warm_up))]
        total = []
        for window in iter_validation_windows(ids, max_segments, window_length, warm_up):
            if window.reset_first:
                memories[0] = []
            rows = zip(memories, window.x.tolist(), window.y.tolist(), window.weight.tolist(), strict=True)
            for memory, xs, ys, weights in rows:
                for x, y, weight in zip(xs, ys, weights, strict=True):
                    memory.append(x)
                    del memory[: -warm_up - 1]
                    total += [sum(memory) * 10.0 + y] if weight else []
        return sorted(total)

    assert losses(max_segments) == losses(1)
