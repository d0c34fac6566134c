"""Unknown characters of a character model cost what they should: in evaluate, score and validation, never generated."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.toy_models import random_lstm

from quickfox.data.encoding import encode_chunks
from quickfox.evaluation.perplexity import evaluate
from quickfox.evaluation.scoring import score
from quickfox.models.language_model import TokenExclusion
from quickfox.text.vocabulary import Vocabulary
from quickfox.tokenizers.base import CODE_POINTS
from quickfox.tokenizers.build import build_tokenizer
from quickfox.tokenizers.character import CharacterTokenizer

E = 0.25
TOKENIZER = CharacterTokenizer(Vocabulary(("\n", "a", "b")), unknown_probability=E)
UNKNOWN = 3
MODEL = TokenExclusion(random_lstm(4), UNKNOWN)
UNKNOWN_BITS = math.log2((CODE_POINTS - 3) / E)


@pytest.mark.parametrize(
    ("text", "min_count", "expected"),
    [("aabbb", 1, 1 / 7), ("aabc", 1, 3 / 6), ("aabc", 2, 3 / 6), ("aabbbcd", 3, 5 / 9), ("x", 1, 2 / 3)],
)
def test_the_probability_of_an_unknown_character(text: str, min_count: int, expected: float) -> None:
    """(1 + number of characters seen once, or left out of the vocabulary) / (2 + number of characters)."""
    tokenizer = build_tokenizer("char", [text], min_count=min_count if min_count > 1 else None) if text != "x" else None
    tokenizer = tokenizer or build_tokenizer("char", [text])
    assert tokenizer.unknown_token is not None
    assert tokenizer.unknown_token.probability == pytest.approx(expected)
    assert tokenizer.unknown_token.token_id == tokenizer.vocabulary_size - 1


def test_unknown_characters_are_read_as_one_token_and_counted() -> None:
    unknown: Counter[str] = Counter()
    assert TOKENIZER.encode("aéb龍é", unknown).tolist() == [1, UNKNOWN, 2, UNKNOWN, UNKNOWN]
    assert unknown == {"é": 2, "龍": 1}
    ending = TOKENIZER.with_end_of_text()
    assert (ending.end_of_text, ending.unknown_token.token_id) == (3, 4)  # type: ignore[union-attr]
    assert ending.encode("é", unknown).tolist() == [4]


def test_the_probabilities_of_all_characters_sum_to_one() -> None:
    """Scored as the last character of a text, one after the other; all unknown ones have the same."""
    scores = score(MODEL, TOKENIZER, ["aé" + character for character in "\nabé"], Counter(), threads=1)
    probabilities = [2.0 ** -float(each.bits[-1]) for each in scores]
    assert sum(probabilities[:3]) + (CODE_POINTS - 3) * probabilities[3] == pytest.approx(1, abs=1e-5)


def test_a_line_of_unknown_characters_is_the_most_surprising() -> None:
    unknown: Counter[str] = Counter()
    strange, usual = score(MODEL, TOKENIZER, ["龍é", "ab"], unknown)
    assert strange.bits.tolist() == pytest.approx([UNKNOWN_BITS] * 2)
    assert (strange.tokens, strange.characters, strange.unknown_characters) == (2, 2, 2)
    assert strange.bits_per_character == pytest.approx(UNKNOWN_BITS)
    assert strange.bits_per_character > (usual.bits_per_character or 0)
    assert unknown == {"龍": 1, "é": 1}


def test_a_model_that_knows_no_line_end_predicts_the_first_character_too() -> None:
    tokenizer = CharacterTokenizer(Vocabulary(("a", "b", "c")), unknown_probability=E)
    (scored,) = score(MODEL, tokenizer, ["é"], Counter())
    assert (scored.tokens, scored.bits.tolist()) == (1, pytest.approx([UNKNOWN_BITS]))


@settings(max_examples=30)
@given(text=st.text(st.sampled_from("ab\né龍🦊"), min_size=2, max_size=40))
def test_evaluate_agrees_with_the_definition(text: str) -> None:
    unknown: Counter[str] = Counter()
    evaluation = evaluate(MODEL, TOKENIZER, encode_chunks([text], TOKENIZER, unknown), unknown)
    ids = TOKENIZER.encode(text, Counter()).astype(np.int64)
    logits, _ = random_lstm(4).forward(ids[None, :-1], random_lstm(4).initial_state(1))
    known = np.exp(logits[0, :, :3].astype(np.float64))
    known /= known.sum(axis=-1, keepdims=True)
    expected = [
        math.log((CODE_POINTS - 3) / E) if target == UNKNOWN else -math.log((1 - E) * row[target])
        for row, target in zip(known, ids[1:], strict=True)
    ]
    assert evaluation.nats_per_token == pytest.approx(np.mean(expected), rel=1e-5)
    assert evaluation.unknown_characters == sum(character not in "ab\n" for character in text)
    assert (evaluation.characters, evaluation.bytes) == (len(text) - 1, len(text[1:].encode()))
