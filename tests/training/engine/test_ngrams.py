"""The estimation of n-gram tables on a thread: its result, its report, its errors, and the loss of the tables alone."""

import threading
from typing import Any

import numpy as np
import pytest

from quickfox.data.dataset import Tokens
from quickfox.errors import BusyError, StorageError
from quickfox.evaluation.perplexity import measure_loss
from quickfox.models.ngram.counting import sort_text
from quickfox.models.ngram.kneser_ney import estimate_ngrams
from quickfox.models.ngram.leave_out import BLOCKS, LeaveOutModel, estimate_leave_out
from quickfox.training.engine import ngrams
from quickfox.training.engine.ngram_process import EstimationProcess, _send
from quickfox.training.engine.ngrams import EstimationJob, NgramEstimation, NgramTables
from quickfox.training.planning.ngrams import MAX_NGRAMS
from toy_models import markov_text

V = 5
TEXT = markov_text(3000, V)
NOTHING = Tokens(TEXT[:0])


class Endless:
    """A text that takes longer to read than any test."""

    dtype = np.dtype(np.uint8)

    def __len__(self) -> int:
        return 2**26

    def __getitem__(self, key: slice) -> np.ndarray:
        return np.zeros(key.stop - key.start, np.uint8)


def estimate(
    training: np.ndarray, validation: Tokens = NOTHING, order: int = 3, *, has_gate: bool = False
) -> NgramEstimation:
    return NgramEstimation.start(order, V, Tokens(training), validation, has_gate=has_gate)


def assert_tables_equal(tables: NgramTables, expected_ids: np.ndarray, order: int = 3) -> None:
    """The tables are those of a text."""
    expected = estimate_ngrams(expected_ids, V, order, MAX_NGRAMS)
    assert tables.ngrams == expected.ngrams
    assert list(tables.tensors) == list(expected.tensors)
    for name, tensor in expected.tensors.items():
        np.testing.assert_array_equal(tables.tensors[name], tensor, strict=True)


@pytest.mark.parametrize("order", [1, 2, 5])
def test_the_tables_are_those_of_the_training_text(order: int) -> None:
    estimation = estimate(TEXT[:2500], Tokens(TEXT[2500:]), order)
    assert_tables_equal(estimation.tables, TEXT[:2500], order)
    assert estimation.is_ready


def test_the_event_describes_the_tables_and_is_taken_once() -> None:
    estimation = estimate(TEXT[:2500], Tokens(TEXT[2500:]))
    assert not estimation.is_reported
    report = estimation.take_report()
    assert report is not None
    assert estimation.is_reported
    assert (report.ngrams, report.min_counts) == (estimation.tables.ngrams, (0, 1, 1))
    assert (report.counted_tokens, report.training_tokens) == (2500, 2500)
    assert report.seconds > 0
    assert estimation.take_report() is None


def test_tables_of_a_checkpoint_are_ready_and_have_no_event() -> None:
    tables = estimate(TEXT).tables
    estimation = NgramEstimation.restore(tables, Tokens(TEXT))
    assert estimation.is_reported
    assert estimation.take_report() is None
    assert estimation.tables is tables
    assert estimation.is_ready


@pytest.mark.parametrize("is_restored", [False, True])
def test_a_gate_gets_the_tables_without_each_block(is_restored: bool) -> None:
    estimation = estimate(TEXT, has_gate=True)
    if is_restored:
        estimation = NgramEstimation.restore(estimation.tables, Tokens(TEXT), has_gate=True)
    tables = estimation.tables
    leave_out = estimate_leave_out(sort_text(TEXT, V, len(tables.ngrams)), tables.ngrams, tables.tensors)
    expected = LeaveOutModel(tables.ngrams, tables.tensors, leave_out)
    token_ids = TEXT[:40].reshape(4, 10).astype(np.int64)
    blocks = np.tile(np.arange(9) % BLOCKS, (4, 1))
    found, prior = (model.prior(token_ids, blocks) for model in (estimation.leave_out, expected))
    np.testing.assert_array_equal(found.log_probs, prior.log_probs, strict=True)
    np.testing.assert_array_equal(found.lengths, prior.lengths, strict=True)


@pytest.mark.parametrize("is_restored", [False, True])
def test_a_process_estimates_what_a_thread_does(is_restored: bool) -> None:
    mask = np.random.default_rng(0).random(500) < 0.3
    validation = Tokens(TEXT[2500:], mask)
    thread = estimate(TEXT[:2500], validation, has_gate=True)
    if is_restored:
        process = NgramEstimation.restore(thread.tables, Tokens(TEXT[:2500]), has_gate=True, in_own_process=True)
    else:
        process = NgramEstimation.start(3, V, Tokens(TEXT[:2500]), validation, has_gate=True, in_own_process=True)
    token_ids, blocks = TEXT[:40].reshape(4, 10).astype(np.int64), np.tile(np.arange(9) % BLOCKS, (4, 1))
    priors = [estimation.leave_out.prior(token_ids, blocks) for estimation in (process, thread)]
    np.testing.assert_array_equal(priors[0].log_probs, priors[1].log_probs, strict=True)
    assert_tables_equal(process.tables, TEXT[:2500])
    report, expected = process.take_report(), thread.take_report()
    assert expected is not None
    assert (None if is_restored else expected.loss) == (report and report.loss)


def test_a_process_that_is_killed_is_one_line() -> None:
    with NgramEstimation.start(3, V, Tokens(Endless()), NOTHING, in_own_process=True) as estimation:
        pass  # its end kills the process
    with pytest.raises(BusyError, match=r"^the process that counts n-grams was ended \(status -9\): free memory"):
        _ = estimation.tables


def test_the_process_ends_with_its_input() -> None:
    """As when the process that started it is killed: here while it counts."""
    process, text = EstimationProcess()._process, np.random.default_rng(0).integers(0, V, 2**22).astype(np.uint8)
    assert process.stdin is not None
    _send(process.stdin, EstimationJob(8, V, len(text)), [text], NOTHING)
    process.stdin.close()
    assert process.wait(60) == 1


def test_an_error_in_the_tables_without_each_block_does_not_concern_the_tables(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_arguments: Any) -> None:
        raise StorageError("cannot read the tokens")

    monkeypatch.setattr(ngrams, "estimate_leave_out", fail)
    estimation = estimate(TEXT, has_gate=True)
    for _ in range(2):
        with pytest.raises(StorageError, match="cannot read the tokens"):
            _ = estimation.leave_out
    assert estimation.take_report() is not None
    assert_tables_equal(estimation.tables, TEXT)


def test_the_estimation_does_not_block_the_caller(held_back: threading.Event) -> None:
    estimation = estimate(TEXT)
    assert not estimation.wait(0.0)
    assert not estimation.is_ready
    held_back.set()
    assert estimation.take_report() is not None
    assert estimation.is_ready
    assert estimation.wait(0.0)


@pytest.mark.parametrize("in_own_process", [False, True])
def test_an_error_of_the_thread_is_raised_where_the_tables_are_needed(in_own_process: bool) -> None:
    class Unreadable:
        """A text on a disk that fails."""

        dtype = np.dtype(np.uint8)

        def __len__(self) -> int:
            return 100

        def __getitem__(self, _key: slice) -> Any:
            raise StorageError("cannot read the tokens")

    estimation = NgramEstimation.start(
        3, V, Tokens(Unreadable()), NOTHING, has_gate=True, in_own_process=in_own_process
    )
    for _ in range(2):
        with pytest.raises(StorageError, match="cannot read the tokens"):
            estimation.take_report()
        with pytest.raises(StorageError, match="cannot read the tokens"):
            _ = estimation.tables
        with pytest.raises(StorageError, match="cannot read the tokens"):
            _ = estimation.leave_out
    assert estimation.is_ready
    assert not estimation.is_reported


def test_a_very_long_text_is_counted_in_segments_and_the_event_says_so() -> None:
    estimation = NgramEstimation.start(3, V, Tokens(TEXT), NOTHING, max_tokens=640)
    report = estimation.take_report()
    assert report is not None
    assert (report.counted_tokens, report.training_tokens) == (640, 3000)
    assert_tables_equal(estimation.tables, np.concatenate([TEXT[int(k * 3000 / 64) :][:10] for k in range(64)]))


def test_a_text_of_the_longest_length_is_counted_as_a_whole() -> None:
    estimation = NgramEstimation.start(3, V, Tokens(TEXT), NOTHING, max_tokens=3000)
    assert_tables_equal(estimation.tables, TEXT)


def test_the_event_says_which_n_grams_were_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ngrams, "MAX_NGRAMS", 20)
    report = estimate(TEXT).take_report()
    assert report is not None
    assert report.ngrams[1] <= 20
    assert report.ngrams[2] <= 20
    assert report.min_counts[2] > 1


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("length", [2, 500, 140_000])
def test_the_loss_of_the_tables_alone_is_that_of_evaluation(length: int, masked: bool) -> None:
    """Texts longer than those evaluated at a time too."""
    ids = markov_text(length, V, random_seed=1)
    mask = np.random.default_rng(0).random(length) < 0.3
    mask[[0, 1]] = True
    validation = Tokens(ids, mask if masked else None)
    estimation = estimate(TEXT, validation)
    report = estimation.take_report()
    assert report is not None
    assert report.loss == pytest.approx(measure_loss(estimation.tables.model, validation)[0], abs=1e-5)


@pytest.mark.parametrize("validation", [NOTHING, Tokens(TEXT[:1]), Tokens(TEXT[:9], np.arange(9) == 0)])
def test_without_validation_targets_there_is_no_loss(validation: Tokens) -> None:
    report = estimate(TEXT, validation).take_report()
    assert report is not None
    assert report.loss is None
