"""Characters to token ids and back, and the tokenizer's file: what it holds, and what is refused."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quickfox.errors import CannotCreateError, DataError, ExitStatus, NoInputError
from quickfox.strict_json import parse_json
from quickfox.text.tokenizers import (
    CharacterTokenizer,
    format_tokenizer,
    load_tokenizer,
    parse_tokenizer,
    save_tokenizer,
)
from quickfox.text.vocabulary import Vocabulary, build_vocabulary, count_characters

UNICODE_TEXT = st.text(min_size=1)  # any characters but lone surrogates


def tokenizer_of(text: str) -> CharacterTokenizer:
    return CharacterTokenizer(build_vocabulary(count_characters([text])))


def test_encoding_and_decoding_by_hand():
    tokenizer = tokenizer_of("the fox\n")  # "\n", " ", e, f, h, o, t, x
    assert tokenizer.encode("hot fox").tolist() == [4, 5, 6, 1, 3, 5, 7]
    assert tokenizer.decode([4, 5, 6, 1, 3, 5, 7]) == "hot fox"
    assert tokenizer.vocabulary_size == 8


def test_no_text_is_no_tokens():
    tokenizer = tokenizer_of("ab")
    assert tokenizer.encode("").shape == (0,)
    assert tokenizer.encode("").dtype == np.uint8
    assert tokenizer.decode([]) == ""


@given(UNICODE_TEXT)
def test_any_text_survives_the_round_trip(text):
    tokenizer = tokenizer_of(text)
    ids = tokenizer.encode(text)
    assert ids.shape == (len(text),)
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode(ids.tolist()) == text


@pytest.mark.parametrize(
    ("vocabulary_size", "dtype"),
    [(1, "uint8"), (256, "uint8"), (257, "uint16"), (65536, "uint16"), (65537, "uint32")],
)
def test_the_smallest_type_that_holds_every_id(vocabulary_size, dtype):
    tokenizer = CharacterTokenizer(Vocabulary(tuple(chr(0x10000 + i) for i in range(vocabulary_size))))
    assert tokenizer.token_dtype == np.dtype(dtype)
    last = tokenizer.vocabulary.characters[-1]
    assert tokenizer.encode(last).dtype == np.dtype(dtype)
    assert tokenizer.encode(last).tolist() == [vocabulary_size - 1]


def test_unknown_characters_are_refused_by_name_commonest_first():
    message = r"not in the vocabulary: '€' \(U\+20AC\), '\\t' \(U\+0009\)$"
    with pytest.raises(DataError, match=message) as failure:
        tokenizer_of("ab").encode("a€\t€b")
    assert failure.value.exit_status == ExitStatus.BAD_DATA == 65


def test_unknown_characters_are_left_out_and_counted_when_asked():
    unknown = Counter({"€": 1})
    ids = tokenizer_of("bd").encode("abcd🦊€ca", unknown)
    assert ids.tolist() == [0, 1]
    assert unknown == {"a": 2, "c": 2, "🦊": 1, "€": 2}  # below, between and beyond the known ones; added up


def test_half_a_surrogate_pair_in_a_seed_is_an_unknown_character():
    """A byte on the command line that is not UTF-8 reaches Python as a lone surrogate."""
    unknown: Counter[str] = Counter()
    assert tokenizer_of("ab").encode("a\udcffb", unknown).tolist() == [0, 1]
    assert unknown == {"\udcff": 1}
    with pytest.raises(DataError, match=r"'\\udcff' \(U\+DCFF\)"):
        tokenizer_of("ab").encode("a\udcffb")


@given(UNICODE_TEXT, st.text())
def test_known_characters_keep_their_order_and_the_others_are_counted(known, text):
    unknown: Counter[str] = Counter()
    tokenizer = tokenizer_of(known)
    assert tokenizer.decode(tokenizer.encode(text, unknown)) == "".join(c for c in text if c in known)
    assert unknown == Counter(c for c in text if c not in known)


@pytest.mark.parametrize("number", [-1, 2, 255])
def test_an_id_outside_of_the_vocabulary_is_refused(number):
    with pytest.raises(DataError, match=rf"token id {number} is outside of the vocabulary of 2 tokens"):
        tokenizer_of("ab").decode([0, number])


# The file.


def test_the_file_is_readable():
    tokenizer = CharacterTokenizer(Vocabulary(("\n", " ", '"', "\\", "a", "é", "狐", "🦊"), min_count=2))
    assert format_tokenizer(tokenizer).decode() == (
        '{\n "format_version": 1,\n "type": "char",\n "min_count": 2,\n "characters": [\n'
        '  "\\n",\n  " ",\n  "\\"",\n  "\\\\",\n  "a",\n  "é",\n  "狐",\n  "🦊"\n ]\n}\n'
    )


@pytest.mark.parametrize("invisible", ["\0", "\x85", "\xa0", "\u202e", "\u2028", "\ufeff", "\U000e0001"])
def test_what_cannot_be_seen_is_escaped(invisible):
    data = format_tokenizer(CharacterTokenizer(Vocabulary(("!", invisible) if invisible > "!" else (invisible, "!"))))
    assert data.isascii()
    assert json.dumps(invisible).encode() in data


@given(UNICODE_TEXT, st.integers(1, 10**9))
def test_any_tokenizer_survives_the_file(text, min_count):
    tokenizer = CharacterTokenizer(Vocabulary(tuple(sorted(set(text))), min_count))
    assert parse_tokenizer(parse_json(format_tokenizer(tokenizer), "f"), "f") == tokenizer


def test_saving_and_loading(tmp_path: Path):
    path = tmp_path / "vocab.json"
    tokenizer = tokenizer_of("größe 🦊\r\n\u2028")
    save_tokenizer(tokenizer, path)
    assert load_tokenizer(path) == tokenizer
    assert path.read_bytes() == format_tokenizer(tokenizer)


def test_saving_into_a_folder_that_is_not_there(tmp_path: Path):
    with pytest.raises(CannotCreateError) as failure:
        save_tokenizer(tokenizer_of("a"), tmp_path / "nowhere" / "vocab.json")
    assert failure.value.exit_status == ExitStatus.CANNOT_CREATE == 73


def test_loading_a_file_that_is_not_there(tmp_path: Path):
    with pytest.raises(NoInputError, match=r"vocab\.json") as failure:
        load_tokenizer(tmp_path / "vocab.json")
    assert failure.value.exit_status == ExitStatus.NO_INPUT == 66


GOOD = {"format_version": 1, "type": "char", "min_count": 1, "characters": ["a", "b"]}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format_version": 2}, r"later version of quickfox \(format 2\): upgrade"),
        ({"format_version": 2, "surprise": 1}, "upgrade"),  # whatever else the later format has
        ({"format_version": 0}, "format_version cannot be 0"),
        ({"format_version": True}, "format_version cannot be True"),
        ({"format_version": 1.0}, "format_version cannot be 1.0"),
        ({"format_version": "1"}, "format_version cannot be '1'"),
        ({"type": "bpe"}, "unknown type of tokenizer 'bpe'"),
        ({"type": ["char"]}, r"unknown type of tokenizer \['char'\]"),
        ({"min_count": 0}, "min_count must be at least 1, not 0"),
        ({"min_count": False}, "min_count cannot be False"),
        ({"min_count": "1"}, "min_count cannot be '1'"),
        ({"characters": "ab"}, "characters must be a list of strings"),
        ({"characters": None}, "characters must be a list of strings"),
        ({"characters": ["a", 1]}, "characters must be a list of strings"),
        ({"characters": []}, "at least one character"),
        ({"characters": ["a", "a"]}, "twice"),
        ({"characters": ["b", "a"]}, "sorted"),
        ({"characters": ["a", "bc"]}, "'bc' is not a single character"),
        ({"surprise": 1}, "unknown member 'surprise'"),
    ],
)
def test_what_is_no_tokenizer_is_refused_naming_the_file(changes, message):
    with pytest.raises(DataError, match=rf"^vocab\.json: .*{message}") as failure:
        parse_tokenizer(GOOD | changes, "vocab.json")
    assert failure.value.exit_status == ExitStatus.BAD_DATA == 65


@pytest.mark.parametrize("member", ["min_count", "characters"])
def test_a_missing_member_is_named(member):
    with pytest.raises(DataError, match=rf"^vocab\.json: member '{member}' is missing"):
        parse_tokenizer({name: GOOD[name] for name in GOOD if name != member}, "vocab.json")


@pytest.mark.parametrize("value", [None, 3, "text", [], {}, {"type": "char"}, {"format_version": 1}])
def test_other_json_is_not_a_vocabulary(value):
    with pytest.raises(DataError, match=r"^notes\.json: not a vocabulary; `llm build-vocab` writes one"):
        parse_tokenizer(value, "notes.json")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not valid JSON"),
        (b"To be, or not to be", "not valid JSON"),
        (b'{"format_version": 1, "format_version": 1}', "'format_version' is given twice"),
        (b'{"format_version": 1, "type": "char", "min_count": NaN, "characters": ["a"]}', "NaN"),
        (b'{"format_version": 1, "type": "char", "min_count": 1, "characters": ["\\ud800"]}', "surrogate"),
        (b'"caf\xe9"', "not UTF-8 at byte 4"),
    ],
)
def test_a_file_that_holds_no_tokenizer_is_refused_by_name(tmp_path: Path, content, message):
    path = tmp_path / "vocab.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"vocab\.json: .*{message}"):
        load_tokenizer(path)
