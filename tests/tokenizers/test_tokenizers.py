"""What every tokenizer promises: texts come back, in one piece or token by token, whatever they are."""

from collections import Counter
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quickfox.config.model import TokenizerKind
from quickfox.errors import DataError, NoInputError, UsageError
from quickfox.text.segmentation import iter_segments
from quickfox.tokenizers.base import StreamingDecoder, Tokenizer, start_of_text
from quickfox.tokenizers.build import build_tokenizer

CORPUS = "The quick brown fox jumps over the lazy dog.\nThe dog sleeps; the fox does not.\n" * 3
KINDS = get_args(TokenizerKind)
TOKENIZERS: dict[str, Tokenizer] = {kind: build_tokenizer(kind, [CORPUS]) for kind in KINDS}
BYTE_LEVEL = [kind for kind in KINDS if kind != "char"]

every_kind = pytest.mark.parametrize("tokenizer", TOKENIZERS.values(), ids=KINDS)
every_byte_level = pytest.mark.parametrize("tokenizer", [TOKENIZERS[kind] for kind in BYTE_LEVEL], ids=BYTE_LEVEL)

TEXTS = st.one_of(
    st.text(),
    st.text(alphabet="the quick?!\n\t  \r\u00e9\u0301\u72d0\U0001f98a<|endoftext|>", max_size=200),
    st.lists(st.sampled_from(CORPUS.split()), max_size=30).map(" ".join),
)


@every_kind
def test_the_corpus_comes_back(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode(CORPUS)
    assert ids.dtype == tokenizer.token_dtype
    assert tokenizer.decode(ids) == CORPUS
    assert b"".join(map(tokenizer.token_bytes, ids.tolist())) == CORPUS.encode()


@every_byte_level
@given(text=TEXTS)
def test_every_text_comes_back(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert all(character in tokenizer.known_characters for character in text)


@every_byte_level
@given(ids=st.data())
def test_token_by_token_a_text_is_what_it_is_in_one_piece(tokenizer: Tokenizer, ids: st.DataObject) -> None:
    """Of any tokens, those too that are no UTF-8 together."""
    drawn = ids.draw(st.lists(st.integers(0, tokenizer.vocabulary_size - 1), max_size=40))
    decoder = StreamingDecoder(tokenizer)
    told = ""
    for token_id in drawn:
        expected = decoder.peek(token_id)
        piece = decoder.add(token_id)
        assert piece == expected
        told += piece
    whole = tokenizer.decode(drawn)
    assert whole in (told, told + "\ufffd")


def test_a_character_is_told_of_when_its_last_byte_is_there() -> None:
    decoder = StreamingDecoder(TOKENIZERS["byte"])
    assert [decoder.add(value) for value in "\u72d0!".encode()] == ["", "", "\u72d0", "!"]


@every_kind
def test_the_end_of_text_is_a_token_of_its_own_that_no_text_holds(tokenizer: Tokenizer) -> None:
    assert tokenizer.end_of_text is None
    ending = tokenizer.with_end_of_text()
    assert ending.vocabulary_size == tokenizer.vocabulary_size + 1
    assert ending.end_of_text == tokenizer.vocabulary_size
    assert ending.token_bytes(ending.end_of_text) == b""
    assert ending.with_end_of_text() == ending
    assert start_of_text(ending).tolist() == [ending.end_of_text]
    np.testing.assert_array_equal(ending.encode(CORPUS), tokenizer.encode(CORPUS))
    assert ending.decode([ending.end_of_text, *ending.encode("The fox")]) == "The fox"


@every_byte_level
def test_what_a_text_says_is_not_taken_for_its_end(tokenizer: Tokenizer) -> None:
    ending = tokenizer.with_end_of_text()
    ids = ending.encode("the <|endoftext|> fox")
    assert ending.end_of_text not in ids
    assert ending.decode(ids) == "the <|endoftext|> fox"


@every_byte_level
def test_half_a_character_of_utf_16_is_unknown(tokenizer: Tokenizer) -> None:
    unknown: Counter[str] = Counter()
    assert tokenizer.decode(tokenizer.encode("a\udcffb\udcff", unknown)) == "ab"
    assert unknown == {"\udcff": 2}
    assert "\udcff" not in tokenizer.known_characters
    with pytest.raises(DataError, match="U\\+DCFF"):
        tokenizer.encode("a\udcffb")


@every_kind
@pytest.mark.parametrize("beyond", [-1, 10**9])
def test_an_id_that_is_no_token_is_refused(tokenizer: Tokenizer, beyond: int) -> None:
    with pytest.raises(DataError, match=f"token id {beyond} is outside"):
        tokenizer.decode([beyond])
    with pytest.raises(DataError, match=f"token id {beyond} is outside"):
        tokenizer.token_bytes(beyond)


@every_kind
@given(text=TEXTS, most=st.integers(1, 9), size=st.integers(1, 50))
def test_the_tokens_of_a_long_text_do_not_depend_on_how_it_comes(
    tokenizer: Tokenizer, text: str, most: int, size: int
) -> None:
    unknown: Counter[str] = Counter()
    chunks = [text[start : start + size] for start in range(0, len(text), size)]
    pieces = [tokenizer.encode(segment, unknown).tolist() for segment in iter_segments(chunks, most)]
    whole = [tokenizer.encode(segment, unknown).tolist() for segment in iter_segments([text], most)]
    assert pieces == whole


@every_kind
def test_where_words_end_a_text_may_be_cut(tokenizer: Tokenizer) -> None:
    """At the borders of segments no token is lost: together their tokens are those of the whole text."""
    pieces = [tokenizer.encode(segment) for segment in iter_segments([CORPUS], 30)]
    assert len(pieces) > 5
    np.testing.assert_array_equal(np.concatenate(pieces), tokenizer.encode(CORPUS))


# Building.


def test_words_are_the_frequent_ones_each_with_its_space() -> None:
    tokenizer = build_tokenizer("word", ["the cat the cat the dog\n"], vocabulary_size=258, min_count=1)
    ids = tokenizer.encode("dog the cat").tolist()
    assert [tokenizer.token_bytes(token_id) for token_id in ids] == [b"d", b"o", b"g", b" the", b" cat"]


def test_bytes_need_no_corpus() -> None:
    assert TOKENIZERS["byte"].encode("\u00e9\n").tolist() == [0xC3, 0xA9, 0x0A]


def test_subwords_are_merged_from_frequent_pairs() -> None:
    tokenizer = build_tokenizer("bpe", ["low lower lowest " * 9], vocabulary_size=258)
    assert tokenizer.vocabulary_size == 258
    assert {len(tokenizer.token_bytes(token_id)) for token_id in range(258)} == {1, 2, 3}
    assert build_tokenizer("bpe", ["low lower lowest " * 9], vocabulary_size=258) == tokenizer


@pytest.mark.parametrize("kind", ["word", "bpe"])
def test_a_vocabulary_has_no_more_tokens_than_asked_for(kind: TokenizerKind) -> None:
    assert build_tokenizer(kind, [CORPUS], vocabulary_size=256).vocabulary_size == 256
    assert build_tokenizer(kind, [CORPUS], vocabulary_size=265).vocabulary_size == 265
    for size in (255, 2**30):
        with pytest.raises(UsageError, match="vocabulary-size must be from 256"):
            build_tokenizer(kind, [CORPUS], vocabulary_size=size)


@pytest.mark.parametrize("kind", ["char", "byte"])
def test_characters_and_bytes_have_no_size_to_choose(kind: TokenizerKind) -> None:
    with pytest.raises(UsageError, match=f"vocabulary-size is for word and bpe, not for {kind}"):
        build_tokenizer(kind, [CORPUS], vocabulary_size=300)


def test_what_cannot_be_built_is_refused() -> None:
    with pytest.raises(UsageError, match="min-count must be at least 1"):
        build_tokenizer("word", [CORPUS], min_count=0)
    with pytest.raises(UsageError, match="min-count is not for byte"):
        build_tokenizer("byte", [CORPUS], min_count=2)
    with pytest.raises(NoInputError):
        build_tokenizer("char", [])
