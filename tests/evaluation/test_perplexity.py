"""Evaluation compared with sums by hand, and with one pass over the whole text."""

import lzma
import math
import zlib
from collections import Counter

import numpy as np
import pytest

from quickfox.data.dataset import Tokens
from quickfox.data.encoding import encode_chunks
from quickfox.errors import DataError, NoInputError
from quickfox.evaluation import perplexity
from quickfox.evaluation.bootstrap import standard_error
from quickfox.evaluation.perplexity import SEGMENTS, WARM_UP, Evaluation, evaluate, measure_loss
from quickfox.models.language_model import LanguageModel
from quickfox.models.losses import cross_entropy
from quickfox.text.vocabulary import Vocabulary
from quickfox.tokenizers.byte_level import ByteTokenizer
from quickfox.tokenizers.character import CharacterTokenizer
from toy_models import FixedModel, fixed_distribution, random_lstm

TOKENIZER = CharacterTokenizer(Vocabulary(("a", "b", "ß", "龍")))


def evaluate_text(
    model: object, tokenizer: CharacterTokenizer, chunks: list[str], unknown: Counter[str] | None = None
) -> Evaluation:
    return evaluate(model, tokenizer, encode_chunks(chunks, tokenizer, unknown), unknown)  # type: ignore[arg-type]


def carried_loss(model: LanguageModel, ids: np.ndarray) -> float:
    """The definition: one pass from the start, with the state zero there."""
    logits, _ = model.forward(ids[np.newaxis, :-1].astype(np.int64), model.initial_state(1))
    probabilities = np.exp(logits[0].astype(np.float64))
    probabilities /= probabilities.sum(axis=-1, keepdims=True)
    return float(-np.log(probabilities[np.arange(len(ids) - 1), ids[1:]]).mean())


def test_cross_entropy_by_hand() -> None:
    logits = np.log(np.array([[[1.0, 3.0], [2.0, 2.0]]], np.float32))
    losses = cross_entropy(logits, np.array([[1, 0]]))
    assert losses.tolist() == [pytest.approx([math.log(4 / 3), math.log(2)])]


def test_cross_entropy_of_large_logits_is_finite() -> None:
    assert cross_entropy(np.array([1e30, -1e30, 0], np.float32), np.array(0)) == 0
    assert cross_entropy(np.array([1e4, -1e4, 0], np.float32), np.array(1)) == pytest.approx(2e4)


def test_evaluation_by_hand() -> None:
    """In "aßb龍a" all but the first are predicted: 1/8, 1/4, 1/8, 1/2: 3 + 2 + 3 + 1 bits, 2 + 1 + 3 + 1 bytes."""
    evaluation = evaluate_text(fixed_distribution(0.5, 0.25, 0.125, 0.125), TOKENIZER, ["aß", "", "b龍a"])
    assert (evaluation.tokens, evaluation.characters, evaluation.bytes) == (4, 4, 7)
    assert evaluation.unknown_characters == 0
    assert evaluation.nats_per_token == pytest.approx(9 / 4 * math.log(2))
    assert evaluation.perplexity == pytest.approx(2 ** (9 / 4))
    assert evaluation.bits_per_character == pytest.approx(9 / 4)
    assert evaluation.bits_per_byte == pytest.approx(9 / 7)


def test_unknown_characters_are_left_out_and_counted() -> None:
    model = fixed_distribution(0.5, 0.25, 0.125, 0.125)
    unknown = Counter({"!": 1})
    evaluation = evaluate_text(model, TOKENIZER, ["éa!ß", "b龍a!"], unknown)
    known = evaluate_text(model, TOKENIZER, ["aßb龍a"])
    assert evaluation.unknown_characters == 3
    assert unknown == {"é": 1, "!": 3}
    for name in ("tokens", "characters", "bytes", "nats_per_token", "bits_per_byte"):
        assert getattr(evaluation, name) == getattr(known, name)
    with pytest.raises(DataError, match="not in the vocabulary"):
        evaluate_text(model, TOKENIZER, ["éa!ß"])


@pytest.mark.parametrize("chunks", [[], [""], ["", ""]])
def test_an_empty_text_is_an_error(chunks: list[str]) -> None:
    with pytest.raises(NoInputError, match="empty"):
        evaluate_text(fixed_distribution(0.5, 0.5), TOKENIZER, chunks)


@pytest.mark.parametrize("text", ["a", "a!", "!"])
def test_a_text_without_targets_is_an_error(text: str) -> None:
    with pytest.raises(DataError, match="at least 2"):
        evaluate_text(fixed_distribution(0.5, 0.5), TOKENIZER, [text], Counter())


def test_targets_without_a_whole_character_are_an_error() -> None:
    tokenizer = ByteTokenizer()
    with pytest.raises(DataError, match="no whole character"):
        evaluate(fixed_distribution(*[1 / 256] * 256), tokenizer, encode_chunks(["é"], tokenizer))


def test_targets_are_counted_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of ids that are copied at a time does not grow with the text."""
    text = "aßb龍a" * 20
    whole = evaluate_text(fixed_distribution(0.5, 0.25, 0.125, 0.125), TOKENIZER, [text])
    monkeypatch.setattr(perplexity, "COUNTED_TOKENS", 7)
    with monkeypatch.context() as patch:
        lengths: list[int] = []
        count = np.bincount
        patch.setattr(np, "bincount", lambda ids: lengths.append(len(ids)) or count(ids))
        parts = evaluate_text(fixed_distribution(0.5, 0.25, 0.125, 0.125), TOKENIZER, [text])
    assert parts == whole
    assert max(lengths) == 7


@pytest.mark.parametrize("length", [2, 3, WARM_UP, WARM_UP + 2, 3 * WARM_UP + 5, (SEGMENTS + 3) * WARM_UP + 7])
def test_the_loss_equals_that_of_one_pass(length: int) -> None:
    model, ids = random_lstm(9), np.random.default_rng(1).integers(0, 9, size=length).astype(np.uint8)
    assert measure_loss(model, Tokens(ids))[0] == pytest.approx(carried_loss(model, ids), abs=1e-5)


def test_an_impossible_text_has_infinite_perplexity() -> None:
    evaluation = evaluate_text(FixedModel([1e4, 0.0]), TOKENIZER, ["ab"])
    assert evaluation.nats_per_token == pytest.approx(1e4)
    assert evaluation.perplexity == math.inf


def test_the_standard_error_by_hand() -> None:
    """Bins of 2 losses with the means 1, 2, 3: their standard deviation 1 divided by sqrt(3)."""
    assert standard_error(np.array([2.0, 4, 6]), np.array([2.0, 2, 2])) == pytest.approx(1 / math.sqrt(3))


def test_the_standard_error_of_bins_of_different_lengths() -> None:
    """The mean is 2; the sums deviate from 2 n_k by 1 and -1; empty bins do not count."""
    error = standard_error(np.array([[7.0, 0], [1, 0]]), np.array([[3.0, 0], [1, 0]]))
    assert error == pytest.approx(math.sqrt(2 / 1 * (1 + 1)) / 4)


def test_one_bin_has_no_standard_error() -> None:
    assert standard_error(np.array([5.0, 0]), np.array([4.0, 0])) is None


def test_the_standard_error_of_correlated_losses() -> None:
    """In a text of runs of 20 equal tokens, the effective number of losses is the number of runs."""
    random = np.random.default_rng(4)
    runs, run_length = 1500, 20
    model, deviation = fixed_distribution(0.9, 0.1), np.log(9) / 2
    texts = [np.repeat(random.integers(0, 2, size=runs), run_length).astype(np.uint8) for _ in range(10)]
    errors = [measure_loss(model, Tokens(ids))[1] for ids in texts]
    assert np.mean(errors) == pytest.approx(deviation / math.sqrt(runs), rel=0.1)


@pytest.mark.parametrize(("tokens", "has_error"), [(17, False), (18, True), (600, True)])
def test_a_text_of_one_window_has_no_standard_error(tokens: int, has_error: bool) -> None:
    ids = np.random.default_rng(5).integers(0, 4, size=tokens).astype(np.uint8)
    _, error = measure_loss(fixed_distribution(0.5, 0.25, 0.125, 0.125), Tokens(ids))
    assert (error is not None) == has_error


def test_gzip_and_xz_compress_the_whole_text() -> None:
    text = "abßb龍!" * 500
    evaluation = evaluate_text(fixed_distribution(*[0.25] * 4), TOKENIZER, [text[:7], "", text[7:]], Counter())
    packed = zlib.compressobj(9, wbits=31)
    gzip_size = len(packed.compress(text.encode()) + packed.flush())
    assert evaluation.gzip_bits_per_character == pytest.approx(8 * gzip_size / len(text))
    xz_size = len(lzma.compress(text.encode(), preset=9))
    assert evaluation.xz_bits_per_character == pytest.approx(8 * xz_size / len(text))
