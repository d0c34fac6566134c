"""Scores compared with bits by hand, and with each text processed singly, one token at a time."""

import math
import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quickfox.errors import DataError
from quickfox.evaluation import scoring
from quickfox.evaluation.scoring import BATCH_SIZE, Score, score
from quickfox.models.language_model import State
from quickfox.text.vocabulary import Vocabulary
from quickfox.tokenizers.character import CharacterTokenizer
from toy_models import FixedModel, fixed_distribution, random_lstm

TOKENIZER = CharacterTokenizer(Vocabulary(("\n", "a", "b", "ß")))
WITHOUT_LINE_END = CharacterTokenizer(Vocabulary(("a", "b", "c", "ß")))


FIXED = fixed_distribution(0.5, 0.25, 0.125, 0.125)
NETWORK = random_lstm(TOKENIZER.vocabulary_size)


def naive_bits(text: str) -> list[float]:
    """The definition: after a line end, state zero, one token at a time, unknown characters left out."""
    state, bits = NETWORK.initial_state(1), []
    token = TOKENIZER.encode("\n")[0]
    for character in text:
        if character not in TOKENIZER.vocabulary.characters:
            bits.append(0.0)
            continue
        logits, state = NETWORK.forward(np.array([[token]]), state)
        token = TOKENIZER.encode(character)[0]
        exponentials = np.exp(logits[0, 0].astype(np.float64))
        bits.append(-math.log2(exponentials[token] / exponentials.sum()))
    return bits


def score_one(text: str, tokenizer: CharacterTokenizer = TOKENIZER) -> Score:
    return score(FIXED, tokenizer, [text], Counter())[0]


def test_bits_by_hand() -> None:
    scored = score_one("abß")
    assert scored.bits.tolist() == pytest.approx([2, 3, 3])
    assert (scored.tokens, scored.characters, scored.unknown_characters) == (3, 3, 0)
    assert scored.bits_per_character == pytest.approx(8 / 3)
    assert scored.perplexity == pytest.approx(2 ** (8 / 3))
    assert scored.peak == 1


def test_a_model_without_a_line_end_does_not_predict_the_first_character() -> None:
    scored = score_one("aßa", WITHOUT_LINE_END)
    assert scored.bits.tolist() == pytest.approx([0, 3, 1])
    assert (scored.tokens, scored.characters) == (2, 2)
    assert scored.bits_per_character == pytest.approx(2)


def test_unknown_characters_are_left_out_and_counted() -> None:
    unknown = Counter({"!": 1})
    first, second = score(FIXED, TOKENIZER, ["é", "!a!b"], unknown)
    assert unknown == {"é": 1, "!": 3}
    assert first.bits.tolist() == [0]
    assert (first.tokens, first.characters, first.unknown_characters) == (0, 0, 1)
    assert second.bits.tolist() == pytest.approx([0, 2, 0, 3])
    assert (second.tokens, second.characters, second.unknown_characters) == (2, 2, 2)
    assert second.bits_per_character == pytest.approx(2.5)
    assert second.peak == 3
    with pytest.raises(DataError, match="not in the vocabulary"):
        score(FIXED, TOKENIZER, ["a", "!a!b"])


@pytest.mark.parametrize(("text", "tokenizer"), [("", TOKENIZER), ("!", TOKENIZER), ("a", WITHOUT_LINE_END)])
def test_a_text_without_predicted_tokens_has_no_measures(text: str, tokenizer: CharacterTokenizer) -> None:
    scored = score_one(text, tokenizer)
    assert len(scored.bits) == len(text)
    assert (scored.tokens, scored.characters) == (0, 0)
    assert (scored.bits_per_character, scored.perplexity, scored.peak) == (None, None, None)


def test_no_texts_give_no_scores() -> None:
    assert score(FIXED, TOKENIZER, []) == []


def test_the_bits_of_a_token_are_distributed_over_its_characters() -> None:
    class Words:
        vocabulary_size = 4
        tokens = ("\n", "bé", "see", "s")
        token_dtype = np.dtype(np.uint8)
        end_of_text = unknown_token = None
        known_characters = ("\n",)

        def encode(self, text: str, unknown: Counter[str] | None = None) -> np.ndarray:
            return np.array([self.tokens.index(token) for token in re.findall("\n|bé|see|s", text)], np.uint8)

        def token_bytes(self, token_id: int) -> bytes:
            return self.tokens[token_id].encode()

    model = fixed_distribution(0.25, 0.25, 0.125, 0.375)
    scored = score(model, Words(), ["bésee"])[0]  # type: ignore[arg-type]
    assert scored.bits.tolist() == pytest.approx([2 / 3, 4 / 3, 1, 1, 1])  # in proportion to their bytes
    assert scored.tokens == 2
    assert scored.perplexity == pytest.approx(2**2.5)


@settings(deadline=None, max_examples=50)
@given(texts=st.lists(st.text("\nabß!", max_size=40), max_size=12), threads=st.integers(1, 3))
def test_each_text_is_scored_independently(texts: list[str], threads: int) -> None:
    scores = score(NETWORK, TOKENIZER, texts, Counter(), threads)
    assert len(scores) == len(texts)
    for text, scored in zip(texts, scores, strict=True):
        assert scored.bits.tolist() == pytest.approx(naive_bits(text), abs=1e-4)


@pytest.mark.parametrize("threads", [1, 2])
def test_several_batches(threads: int) -> None:
    random = np.random.default_rng(2)
    texts = ["".join(random.choice(list("abß"), size=size)) for size in random.integers(0, 30, size=2 * BATCH_SIZE + 7)]
    for text, scored in zip(texts, score(NETWORK, TOKENIZER, texts, threads=threads), strict=True):
        assert scored.bits.tolist() == pytest.approx(naive_bits(text), abs=1e-4)


@pytest.mark.parametrize("length", [500, 501, 1005])
def test_a_text_of_several_segments_is_scored_as_in_one_pass(length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "SEGMENT", 500)
    text = "".join(np.random.default_rng(3).choice(list("\nabß"), size=length))
    long, short = score(NETWORK, TOKENIZER, [text, "ab"])
    assert long.bits.tolist() == pytest.approx(naive_bits(text), abs=1e-3)
    assert (long.tokens, long.characters) == (length, length)
    assert short.bits.tolist() == pytest.approx(naive_bits("ab"), abs=1e-4)


def test_large_vocabularies_are_processed_in_short_windows() -> None:
    """The logits of 128 texts at 16 positions are never in memory at the same time."""
    max_size = 0

    class Recording(FixedModel):
        def forward(self, token_ids: np.ndarray, state: State) -> tuple[np.ndarray, State]:
            nonlocal max_size
            max_size = max(max_size, token_ids.size)
            return super().forward(token_ids, state)

    size = 20_000
    tokenizer = CharacterTokenizer(Vocabulary(tuple(map(chr, range(10, 10 + size)))))
    scores = score(Recording([1 / size] * size), tokenizer, ["abcdef"] * BATCH_SIZE)
    assert max_size == BATCH_SIZE
    assert scores[-1].bits.tolist() == pytest.approx([math.log2(size)] * 6, rel=1e-5)


def test_an_impossible_text_has_infinite_perplexity() -> None:
    scored = score(FixedModel([1e4, 0, 0, 0]), TOKENIZER, ["ab"])[0]
    assert scored.bits_per_character == pytest.approx(1e4 / math.log(2))
    assert scored.perplexity == math.inf


@pytest.mark.parametrize("threads", [1, 2])
def test_an_exception_stops_all_threads(threads: int) -> None:
    class Failing(FixedModel):
        def forward(self, token_ids: np.ndarray, state: State) -> tuple[np.ndarray, State]:
            raise MemoryError

    with pytest.raises(MemoryError):
        score(Failing([0.25] * 4), TOKENIZER, ["ab"] * 300, threads=threads)
