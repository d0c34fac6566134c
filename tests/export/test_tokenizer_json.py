"""An exported tokenizer.json, loaded by the `tokenizers` library, gives the same token ids."""

from collections import Counter
from typing import get_args

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from random_models import TEXT, tokenizer_for_text

from quickfox.config.model import TokenizerKind
from quickfox.export.tokenizer_json import end_of_text_name, format_tokenizer_definition
from quickfox.text.vocabulary import Vocabulary
from quickfox.tokenizers.base import Tokenizer
from quickfox.tokenizers.character import CharacterTokenizer
from tokenizers import Tokenizer as Encoder

KINDS: tuple[TokenizerKind, ...] = get_args(TokenizerKind)


def pair(kind: TokenizerKind, *, end_of_text: bool) -> tuple[Tokenizer, Encoder]:
    tokenizer = tokenizer_for_text(kind, end_of_text=end_of_text)
    return tokenizer, Encoder.from_str(format_tokenizer_definition(tokenizer).decode())


PAIRS = {kind: pair(kind, end_of_text=False) for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_the_corpus_has_equal_ids_and_round_trips(kind: TokenizerKind) -> None:
    tokenizer, encoder = PAIRS[kind]
    ids = encoder.encode(TEXT).ids
    assert ids == tokenizer.encode(TEXT).tolist()
    assert encoder.decode(ids) == TEXT
    assert encoder.get_vocab_size() == tokenizer.vocabulary_size


@pytest.mark.parametrize("kind", ["byte", "word", "bpe"])
@given(text=st.text())
@example("\x1c a\x1d\x1e\x1f\x85\u3000 ²½Ⅷ㊿ _a_ e\u0301 \u200d")
def test_any_text_has_equal_ids_and_round_trips(kind: TokenizerKind, text: str) -> None:
    tokenizer, encoder = PAIRS[kind]
    ids = encoder.encode(text).ids
    assert ids == tokenizer.encode(text).tolist()
    assert encoder.decode(ids) == text


@pytest.mark.parametrize("end_of_text", [False, True])
def test_unknown_characters_become_the_unknown_token(end_of_text: bool) -> None:
    tokenizer, encoder = pair("char", end_of_text=end_of_text)
    expected = tokenizer.encode("The €fox→→", Counter()).tolist()
    assert expected.count(tokenizer.vocabulary_size - 1) == 3
    assert encoder.encode("The €fox→→").ids == [tokenizer.end_of_text] * end_of_text + expected


def test_without_an_unknown_token_characters_are_left_out() -> None:
    tokenizer = CharacterTokenizer(Vocabulary(("a", "b")))
    encoder = Encoder.from_str(format_tokenizer_definition(tokenizer).decode())
    assert encoder.decode(encoder.encode("a€b→").ids) == "ab"


@pytest.mark.parametrize("kind", KINDS)
def test_a_text_begins_with_the_end_of_text_token(kind: TokenizerKind) -> None:
    tokenizer, encoder = pair(kind, end_of_text=True)
    name = end_of_text_name(tokenizer)
    assert name is not None
    assert encoder.token_to_id(name) == tokenizer.end_of_text
    assert encoder.encode("The fox").ids == [tokenizer.end_of_text, *tokenizer.encode("The fox").tolist()]
    assert encoder.decode(encoder.encode("The fox").ids) == "The fox"
