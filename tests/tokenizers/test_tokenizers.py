"""Properties of every tokenizer: round trips of any text, as a whole or token by token."""

import itertools
from collections import Counter
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quickfox.config.model import TokenizerKind
from quickfox.errors import DataError, NoInputError, UsageError
from quickfox.text.segmentation import iter_segments
from quickfox.tokenizers import bpe
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
def test_round_trip_of_the_corpus(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode(CORPUS)
    assert ids.dtype == tokenizer.token_dtype
    assert tokenizer.decode(ids) == CORPUS
    assert b"".join(map(tokenizer.token_bytes, ids.tolist())) == CORPUS.encode()


@every_byte_level
@given(text=TEXTS)
def test_round_trip_of_any_text(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert all(character in tokenizer.known_characters for character in text)


@every_kind
@given(texts=st.lists(st.one_of(TEXTS, st.just("\ud800a")), max_size=5))
def test_several_texts_are_encoded_as_each_by_itself(tokenizer: Tokenizer, texts: list[str]) -> None:
    unknown, expected_unknown = Counter[str](), Counter[str]()
    ids, counts = tokenizer.encode_all(texts, unknown)
    expected = [tokenizer.encode(text, expected_unknown).tolist() for text in texts]
    assert (ids.dtype, ids.tolist()) == (tokenizer.token_dtype, list(itertools.chain(*expected)))
    assert counts.tolist() == [len(each) for each in expected]
    assert unknown == expected_unknown


@every_byte_level
@given(data=st.data())
def test_streaming_decoder_equals_decode(tokenizer: Tokenizer, data: st.DataObject) -> None:
    """For any tokens, even if they are not UTF-8."""
    token_ids = data.draw(st.lists(st.integers(0, tokenizer.vocabulary_size - 1), max_size=40))
    decoder = StreamingDecoder(tokenizer)
    streamed = ""
    for token_id in token_ids:
        expected = decoder.peek(token_id)
        text = decoder.add(token_id)
        assert text == expected
        streamed += text
    assert tokenizer.decode(token_ids) in (streamed, streamed + "\ufffd")


def test_streaming_decoder_returns_a_character_with_its_last_byte() -> None:
    decoder = StreamingDecoder(TOKENIZERS["byte"])
    assert [decoder.add(value) for value in "\u72d0!".encode()] == ["", "", "\u72d0", "!"]


@every_kind
def test_with_end_of_text_appends_a_token(tokenizer: Tokenizer) -> None:
    assert tokenizer.end_of_text is None
    ending = tokenizer.with_end_of_text()
    assert ending.vocabulary_size == tokenizer.vocabulary_size + 1
    assert ending.end_of_text == tokenizer.vocabulary_size - (tokenizer.unknown_token is not None)
    assert ending.token_bytes(ending.end_of_text) == b""
    assert ending.with_end_of_text() == ending
    assert start_of_text(ending).tolist() == [ending.end_of_text]
    np.testing.assert_array_equal(ending.encode(CORPUS), tokenizer.encode(CORPUS))
    assert ending.decode([ending.end_of_text, *ending.encode("The fox")]) == "The fox"


@every_byte_level
def test_the_name_of_the_end_of_text_token_is_ordinary_text(tokenizer: Tokenizer) -> None:
    ending = tokenizer.with_end_of_text()
    ids = ending.encode("the <|endoftext|> fox")
    assert ending.end_of_text not in ids
    assert ending.decode(ids) == "the <|endoftext|> fox"


@every_byte_level
def test_an_unpaired_surrogate_is_unknown(tokenizer: Tokenizer) -> None:
    unknown: Counter[str] = Counter()
    assert tokenizer.decode(tokenizer.encode("a\udcffb\udcff", unknown)) == "ab"
    assert unknown == {"\udcff": 2}
    assert "\udcff" not in tokenizer.known_characters
    with pytest.raises(DataError, match="U\\+DCFF"):
        tokenizer.encode("a\udcffb")


@every_kind
@pytest.mark.parametrize("beyond", [-1, 10**9])
def test_an_id_outside_the_vocabulary(tokenizer: Tokenizer, beyond: int) -> None:
    with pytest.raises(DataError, match=f"token id {beyond} is outside the"):
        tokenizer.decode([beyond])
    with pytest.raises(DataError, match=f"token id {beyond} is outside the"):
        tokenizer.token_bytes(beyond)


@every_kind
@given(text=TEXTS, limit=st.integers(1, 9), size=st.integers(1, 50))
def test_tokens_do_not_depend_on_the_chunks(tokenizer: Tokenizer, text: str, limit: int, size: int) -> None:
    unknown: Counter[str] = Counter()
    chunks = [text[start : start + size] for start in range(0, len(text), size)]
    from_chunks = [tokenizer.encode(segment, unknown).tolist() for segment in iter_segments(chunks, limit)]
    whole = [tokenizer.encode(segment, unknown).tolist() for segment in iter_segments([text], limit)]
    assert from_chunks == whole


@every_kind
def test_tokens_of_segments_are_those_of_the_whole_text(tokenizer: Tokenizer) -> None:
    parts = [tokenizer.encode(segment) for segment in iter_segments([CORPUS], 30)]
    assert len(parts) > 5
    np.testing.assert_array_equal(np.concatenate(parts), tokenizer.encode(CORPUS))


# Building.


def test_the_most_frequent_words_with_their_spaces() -> None:
    tokenizer = build_tokenizer("word", ["the cat the cat the dog\n"], vocabulary_size=258, min_count=1)
    ids = tokenizer.encode("dog the cat").tolist()
    assert [tokenizer.token_bytes(token_id) for token_id in ids] == [b"d", b"o", b"g", b" the", b" cat"]


def test_byte_tokenizer() -> None:
    assert TOKENIZERS["byte"].encode("\u00e9\n").tolist() == [0xC3, 0xA9, 0x0A]


def test_frequent_pairs_are_merged() -> None:
    tokenizer = build_tokenizer("bpe", ["low lower lowest " * 9], vocabulary_size=258)
    assert tokenizer.vocabulary_size == 258
    assert {len(tokenizer.token_bytes(token_id)) for token_id in range(258)} == {1, 2, 3}
    assert build_tokenizer("bpe", ["low lower lowest " * 9], vocabulary_size=258) == tokenizer


@pytest.mark.parametrize("kind", ["word", "bpe"])
def test_vocabulary_size_is_the_maximum_number_of_tokens(kind: TokenizerKind) -> None:
    assert build_tokenizer(kind, [CORPUS], vocabulary_size=256).vocabulary_size == 256
    assert build_tokenizer(kind, [CORPUS], vocabulary_size=265).vocabulary_size == 265
    for size in (255, 2**30):
        with pytest.raises(UsageError, match="vocabulary_size must be from 256"):
            build_tokenizer(kind, [CORPUS], vocabulary_size=size)


@pytest.mark.parametrize("kind", ["char", "byte"])
def test_vocabulary_size_does_not_apply_to_characters_and_bytes(kind: TokenizerKind) -> None:
    with pytest.raises(UsageError, match=f"vocabulary_size is for word and bpe, not for {kind}"):
        build_tokenizer(kind, [CORPUS], vocabulary_size=300)


def test_invalid_min_count_and_empty_corpus() -> None:
    with pytest.raises(UsageError, match="min_count must be at least 1"):
        build_tokenizer("word", [CORPUS], min_count=0)
    with pytest.raises(UsageError, match="min_count does not apply to byte"):
        build_tokenizer("byte", [CORPUS], min_count=2)
    with pytest.raises(NoInputError):
        build_tokenizer("char", [])


@pytest.mark.parametrize("alphabet", ["กขคงจฉช", "ACGT", "a", " "])
def test_the_pieces_of_a_text_without_spaces_are_bounded(alphabet: str) -> None:
    """So that the time to train byte-pair encoding does not take the square of its length; no character is lost."""
    random = np.random.default_rng(0)
    text = "fox " + "".join(random.choice(list(alphabet), 5000)) + " fox\n"
    pieces = bpe._bound_pieces(text)
    assert "".join(pieces) == text
    assert max(map(len, pieces)) <= bpe.MAX_PIECE_CHARACTERS + len(" fox\n")
    tokenizer = build_tokenizer("bpe", [text], 300)
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert len(tokenizer.encode(text)) < len(text.encode()) / 1.5
    assert bpe._bound_pieces("the quick brown fox " * 9) == ["the quick brown fox " * 9]
