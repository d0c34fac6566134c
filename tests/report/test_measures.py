"""Measures of a text: groups, passages, paired differences, embeddings, by hand."""

from pathlib import Path

import numpy as np
import pytest

from quickfox.model import load
from quickfox.report.measures import (
    TextMeasures,
    by_class,
    by_line_position,
    by_word_position,
    character_class,
    compare,
    map_embedding,
    passages,
)


def measures_of(text: str, bits: list[float] | np.ndarray, start: int = 0) -> TextMeasures:
    """Measures with these bits of the characters of a text, which begins at character `start` of another."""
    array = np.asarray(bits, np.float32)
    size = len(text.encode())
    return TextMeasures(text, start, array, float(array.sum()) / size, None, size, [])


def test_characters_are_classified_by_unicode() -> None:
    classes = [character_class(character) for character in "aA1 \n,+é字\x00"]
    assert classes == [
        "letter",
        "capital letter",
        "digit",
        "space",
        "line end",
        "punctuation",
        "symbol",
        "letter",
        "letter",
        "other",
    ]


def test_groups_have_the_mean_surprisal_of_their_characters() -> None:
    measures = measures_of("ab, C", [1, 3, 5, 7, 9])
    found = {group.label: (group.characters, group.bits) for group in by_class(measures)}
    assert found == {"letter": (2, 2), "punctuation": (1, 5), "space": (1, 7), "capital letter": (1, 9)}
    assert by_class(measures)[0].label == "letter"  # the most frequent


def test_positions_start_at_one_in_each_word_and_line() -> None:
    measures = measures_of("ab c\nabcdefghij", range(15))
    words = by_word_position(measures)
    assert [(group.label, group.characters) for group in words] == [
        ("1", 3),
        ("2", 2),
        *((str(position), 1) for position in range(3, 8)),
        ("8+", 3),
    ]
    assert words[0].bits == pytest.approx((0 + 3 + 5) / 3)
    lines = by_line_position(measures)
    assert [(group.label, group.characters) for group in lines] == [
        ("1", 2),
        ("2", 2),
        ("3-4", 4),
        ("5-8", 4),
        ("9-16", 2),
    ]


def test_passages_are_ordered_by_their_surprisal() -> None:
    words = "word " * 400
    measures = measures_of(words, np.arange(len(words)))
    easiest, hardest = passages(measures)
    assert easiest[0].mean_bits < easiest[-1].mean_bits < hardest[-1].mean_bits < hardest[0].mean_bits
    assert words.startswith(easiest[0].text)
    assert all(passage.text in words for passage in (*easiest, *hardest))
    easiest, hardest = passages(measures_of("short", [1] * 5))
    assert easiest == hardest == []


def test_a_paired_difference_is_narrower_than_the_measures() -> None:
    random = np.random.default_rng(0)
    text = "abcdefgh" * 1000
    bits = random.gamma(2.0, size=len(text))
    first, second = (
        measures_of(text, bits),
        measures_of(text[1:], bits[1:] + 0.125 + 0.01 * random.normal(size=len(bits) - 1), 1),
    )
    mean, error = compare(first, second) or (np.nan, None)
    assert mean == pytest.approx(0.125, abs=0.002)
    assert error is not None
    assert error < 0.001
    assert (compare(second, first) or [None])[0] == pytest.approx(-mean)


def test_texts_that_are_cut_at_other_tokens_or_have_unknown_characters_are_compared_where_both_are() -> None:
    text = "the ä fox"
    first = measures_of("he \ufffd fo", [1.0] * 7, 1)  # of characters, one of them unknown
    second = measures_of(" ä fox", [1.0, 3.0, 1.0, 1.0, 1.0, 1.0], 3)  # of subwords, the first of which is "the"
    mean, _ = compare(first, second) or (np.nan, None)
    assert mean == pytest.approx(2 / len(" ä fo".encode()))
    assert compare(first, measures_of("he x fo", [1.0] * 7, 1)) is not None  # in place of an unknown character
    assert compare(first, measures_of("xx ä fo", [1.0] * 7, 1)) is None
    mean, _ = compare(measures_of(text, [1.0] * 9), measures_of(text[4:], [2.0] * 5)) or (np.nan, None)
    assert mean == pytest.approx(5 / len(text[4:].encode()))  # another share of the text was held out


def test_neighbors_are_the_nearest_by_cosine(model_directory: Path) -> None:
    model = load(model_directory)
    found = map_embedding(model, np.array([5, 5, 5, 6, 6, 7, 8], np.uint8))
    assert found is not None
    assert found.tokens == [5, 6, 7, 8]
    assert found.positions.shape == (4, 2)
    vectors = model.bundle.parameters["embedding.weight"][found.tokens]
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    similarities = (unit @ unit[0])[1:]
    assert [token for token, _ in found.neighbors[0]] == [
        found.tokens[1:][index] for index in np.argsort(-similarities)
    ]
    assert found.neighbors[0][0][1] == pytest.approx(similarities.max(), abs=1e-6)
    assert 0 < found.explained <= 1


def test_few_tokens_have_no_map(model_directory: Path) -> None:
    assert map_embedding(load(model_directory), np.array([5, 5, 6], np.uint8)) is None
