"""Encode and decode characters."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quickfox.errors import DataError, ExitStatus
from quickfox.text.vocabulary import Vocabulary, build_vocabulary, count_characters
from quickfox.tokenizers.character import CharacterTokenizer

UNICODE_TEXT = st.text(min_size=1)  # all characters except surrogates


def tokenizer_of(text: str) -> CharacterTokenizer:
    return CharacterTokenizer(build_vocabulary(count_characters([text])))


def test_encode_and_decode_worked_example():
    tokenizer = tokenizer_of("the fox\n")  # "\n", " ", e, f, h, o, t, x
    assert tokenizer.encode("hot fox").tolist() == [4, 5, 6, 1, 3, 5, 7]
    assert tokenizer.decode([4, 5, 6, 1, 3, 5, 7]) == "hot fox"
    assert tokenizer.vocabulary_size == 8


def test_an_empty_text():
    tokenizer = tokenizer_of("ab")
    assert tokenizer.encode("").shape == (0,)
    assert tokenizer.encode("").dtype == np.uint8
    assert tokenizer.decode([]) == ""


@given(UNICODE_TEXT)
def test_round_trip_of_any_text(text):
    tokenizer = tokenizer_of(text)
    ids = tokenizer.encode(text)
    assert ids.shape == (len(text),)
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode(ids.tolist()) == text


@pytest.mark.parametrize(
    ("vocabulary_size", "dtype"),
    [(1, "uint8"), (256, "uint8"), (257, "uint16"), (65536, "uint16"), (65537, "uint32")],
)
def test_token_dtype_is_the_smallest_that_holds_every_id(vocabulary_size, dtype):
    tokenizer = CharacterTokenizer(Vocabulary(tuple(chr(0x10000 + i) for i in range(vocabulary_size))))
    assert tokenizer.token_dtype == np.dtype(dtype)
    last = tokenizer.vocabulary.characters[-1]
    assert tokenizer.encode(last).dtype == np.dtype(dtype)
    assert tokenizer.encode(last).tolist() == [vocabulary_size - 1]


def test_unknown_characters_are_named_most_frequent_first():
    message = r"not in the vocabulary: '€' \(U\+20AC\), '\\t' \(U\+0009\)$"
    with pytest.raises(DataError, match=message) as failure:
        tokenizer_of("ab").encode("a€\t€b")
    assert failure.value.exit_status == ExitStatus.BAD_DATA == 65


def test_unknown_characters_are_skipped_and_counted_on_request():
    unknown = Counter({"€": 1})
    ids = tokenizer_of("bd").encode("abcd🦊€ca", unknown)
    assert ids.tolist() == [0, 1]
    assert unknown == {"a": 2, "c": 2, "🦊": 1, "€": 2}  # below, between and above the known ones; counts are added


def test_an_unpaired_surrogate_is_an_unknown_character():
    """A byte on the command line that is not UTF-8 is an unpaired surrogate in Python."""
    unknown: Counter[str] = Counter()
    assert tokenizer_of("ab").encode("a\udcffb", unknown).tolist() == [0, 1]
    assert unknown == {"\udcff": 1}
    with pytest.raises(DataError, match=r"'\\udcff' \(U\+DCFF\)"):
        tokenizer_of("ab").encode("a\udcffb")


@given(UNICODE_TEXT, st.text())
def test_known_characters_are_encoded_in_order_and_the_others_counted(known, text):
    unknown: Counter[str] = Counter()
    tokenizer = tokenizer_of(known)
    assert tokenizer.decode(tokenizer.encode(text, unknown)) == "".join(c for c in text if c in known)
    assert unknown == Counter(c for c in text if c not in known)


@pytest.mark.parametrize("number", [-1, 2, 255])
def test_an_id_outside_the_vocabulary(number):
    with pytest.raises(DataError, match=rf"token id {number} is outside the vocabulary of 2 tokens"):
        tokenizer_of("ab").decode([0, number])


def test_unknown_characters_are_the_unknown_token_however_many_tokens_there_are() -> None:
    characters = "".join(map(chr, range(0x4E00, 0x4E00 + 400))) + "ab"
    tokenizer = tokenizer_of(characters).with_unknown_token(Counter(characters))
    assert tokenizer.unknown_token is not None
    unknown_id = tokenizer.unknown_token.token_id
    assert unknown_id == 402
    for text in ("ax", "a\u4e01\u00e4", "xx"):  # ASCII alone, and not
        unknown: Counter[str] = Counter()
        ids = tokenizer.encode(text, unknown)
        assert [token == unknown_id for token in ids.tolist()] == [character not in characters for character in text]
        assert unknown.total() == sum(character not in characters for character in text)
