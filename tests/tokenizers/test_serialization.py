"""Tokenizer files: content, round trips and invalid files."""

import json
import re
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quickfox.config.model import TokenizerKind
from quickfox.errors import CannotCreateError, DataError, ExitStatus, NoInputError
from quickfox.text.vocabulary import Vocabulary, build_vocabulary, count_characters
from quickfox.tokenizers.build import build_tokenizer
from quickfox.tokenizers.character import CharacterTokenizer
from quickfox.tokenizers.serialization import format_tokenizer, load_tokenizer, parse_tokenizer, save_tokenizer
from quickfox.tokenizers.word import WordTokenizer

UNICODE_TEXT = st.text(min_size=1)  # all characters except surrogates


def characters_of(text: str) -> CharacterTokenizer:
    return CharacterTokenizer(build_vocabulary(count_characters([text])))


def test_the_file_is_readable():
    tokenizer = CharacterTokenizer(Vocabulary(("\n", " ", '"', "\\", "a", "é", "狐", "🦊"), min_count=2))
    assert format_tokenizer(tokenizer).decode() == (
        '{\n "format_version": 1,\n "type": "char",\n "min_count": 2,\n "characters": [\n'
        '  "\\n",\n  " ",\n  "\\"",\n  "\\\\",\n  "a",\n  "é",\n  "狐",\n  "🦊"\n ]\n}\n'
    )


@pytest.mark.parametrize("invisible", ["\0", "\x85", "\xa0", "\u202e", "\u2028", "\ufeff", "\U000e0001"])
def test_characters_that_are_not_printable_are_escaped(invisible):
    data = format_tokenizer(CharacterTokenizer(Vocabulary(("!", invisible) if invisible > "!" else (invisible, "!"))))
    assert data.isascii()
    assert json.dumps(invisible).encode() in data


@given(UNICODE_TEXT, st.integers(1, 10**9))
def test_round_trip_of_any_character_tokenizer(text, min_count):
    tokenizer = CharacterTokenizer(Vocabulary(tuple(sorted(set(text))), min_count))
    assert parse_tokenizer(format_tokenizer(tokenizer), "f") == tokenizer


@given(kind=st.sampled_from(get_args(TokenizerKind)), text=UNICODE_TEXT, size=st.integers(258, 300))
def test_round_trip_of_the_tokenizer_of_any_text(kind: TokenizerKind, text: str, size: int) -> None:
    tokenizer = build_tokenizer(kind, [text], size if kind in ("word", "bpe") else None)
    for each in (tokenizer, tokenizer.with_end_of_text()):
        parsed = parse_tokenizer(format_tokenizer(each), "f")
        assert (format_tokenizer(parsed), parsed.vocabulary_size) == (format_tokenizer(each), each.vocabulary_size)
        assert parsed.encode(text).tolist() == each.encode(text).tolist()


def test_save_and_load(tmp_path: Path):
    path = tmp_path / "vocab.json"
    tokenizer = characters_of("größe 🦊\r\n\u2028")
    save_tokenizer(tokenizer, path)
    assert load_tokenizer(path) == tokenizer
    assert path.read_bytes() == format_tokenizer(tokenizer)


def test_save_to_a_missing_directory(tmp_path: Path):
    with pytest.raises(CannotCreateError) as failure:
        save_tokenizer(characters_of("a"), tmp_path / "nowhere" / "vocab.json")
    assert failure.value.exit_status == ExitStatus.CANNOT_CREATE == 73


def test_load_a_missing_file(tmp_path: Path):
    with pytest.raises(NoInputError, match=r"vocab\.json") as failure:
        load_tokenizer(tmp_path / "vocab.json")
    assert failure.value.exit_status == ExitStatus.NO_INPUT == 66


GOOD = {"format_version": 1, "type": "char", "min_count": 1, "characters": ["a", "b"]}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format_version": 3}, r"newer version of quickfox \(format 3\): upgrade"),
        ({"format_version": 3, "extra": 1}, "upgrade"),  # other members of a newer format are not checked
        ({"format_version": 2}, "member 'unknown_probability' is missing"),
        ({"format_version": 2, "unknown_probability": 1}, "unknown_probability cannot be 1"),
        ({"format_version": 2, "unknown_probability": 1.0}, "unknown_probability must be between 0 and 1, not 1.0"),
        ({"unknown_probability": 0.5}, "unknown member 'unknown_probability'"),
        ({"format_version": 0}, "format_version cannot be 0"),
        ({"format_version": True}, "format_version cannot be True"),
        ({"format_version": 1.0}, "format_version cannot be 1.0"),
        ({"format_version": "1"}, "format_version cannot be '1'"),
        ({"type": "unigram"}, "unknown type of tokenizer 'unigram'"),
        ({"end_of_text": 1}, "end_of_text cannot be 1"),
        ({"type": "byte"}, "unknown member 'characters'"),
        ({"type": "word"}, "unknown member 'characters'"),
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
        ({"extra": 1}, "unknown member 'extra'"),
    ],
)
def test_invalid_members_are_reported_with_the_file_name(changes, message):
    with pytest.raises(DataError, match=rf"^vocab\.json: .*{message}") as failure:
        parse_tokenizer(json.dumps(GOOD | changes).encode(), "vocab.json")
    assert failure.value.exit_status == ExitStatus.BAD_DATA == 65


@pytest.mark.parametrize("member", ["min_count", "characters"])
def test_a_missing_member_is_reported(member):
    with pytest.raises(DataError, match=rf"^vocab\.json: member '{member}' is missing"):
        parse_tokenizer(json.dumps({name: GOOD[name] for name in GOOD if name != member}).encode(), "vocab.json")


@pytest.mark.parametrize("value", [None, 3, "text", [], {}, {"type": "char"}, {"format_version": 1}])
def test_other_json_is_not_a_vocabulary(value):
    with pytest.raises(DataError, match=r"^notes\.json: not a vocabulary; `llm build-vocab` writes one"):
        parse_tokenizer(json.dumps(value).encode(), "notes.json")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not valid JSON"),
        (b"To be, or not to be", "not valid JSON"),
        (b'{"format_version": 1, "format_version": 1}', "'format_version' is given twice"),
        (b'{"format_version": 1, "type": "char", "min_count": NaN, "characters": ["a"]}', "NaN"),
        (b'{"format_version": 1, "type": "char", "min_count": 1, "characters": ["\\ud800"]}', "surrogate"),
        (b'"caf\xe9"', "can't decode byte 0xe9 in position 4"),
    ],
)
def test_invalid_json_is_reported_with_the_file_name(tmp_path: Path, content, message):
    path = tmp_path / "vocab.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"vocab\.json: .*{message}"):
        load_tokenizer(path)


WORDS = {"format_version": 1, "type": "word", "words": [" the", "cat", "?!", " \u00e9"]}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("the", "words must be a list of strings"),
        ([" the", " the"], "' the' is in the vocabulary twice"),
        (["a"], "'a' is a single byte"),
        ([""], "'' is not a word"),
        (["two words"], "'two words' is not a word"),
        (["  the"], "'  the' is not a word"),
    ],
)
def test_invalid_lists_of_words(words, message):
    assert parse_tokenizer(json.dumps(WORDS).encode(), "vocab.json").vocabulary_size == 260
    with pytest.raises(DataError, match=rf"^vocab\.json: .*{re.escape(message)}"):
        parse_tokenizer(json.dumps(WORDS | {"words": words}).encode(), "vocab.json")


@pytest.mark.parametrize("kind", get_args(TokenizerKind))
@pytest.mark.parametrize("has_end", [False, True])
def test_round_trip_of_every_kind(tmp_path: Path, kind, has_end):
    tokenizer = build_tokenizer(kind, ["the cat, the dog; the caf\u00e9\n"])
    if has_end:
        tokenizer = tokenizer.with_end_of_text()
    save_tokenizer(tokenizer, tmp_path / "vocab.json")
    loaded = load_tokenizer(tmp_path / "vocab.json")
    assert loaded == tokenizer
    assert loaded.kind == kind
    assert (loaded.end_of_text is None) == (not has_end)
    assert format_tokenizer(loaded) == format_tokenizer(tokenizer)


# Files of the tokenizers library.


def subwords(**changes: Any) -> dict[str, Any]:
    definition = build_tokenizer("bpe", ["the cat, the dog"]).to_json()
    return definition | changes


def test_lossless_pre_tokenizers_are_accepted():
    split = {"type": "Split", "pattern": {"Regex": r"\p{N}{1,3}"}, "behavior": "Isolated", "invert": False}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    steps = {"type": "Sequence", "pretokenizers": [split, level]}
    data = json.dumps(subwords(pre_tokenizer=steps)).encode()
    tokenizer = parse_tokenizer(data, "tokenizer.json")
    assert tokenizer.decode(tokenizer.encode("12345 the")) == "12345 the"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"normalizer": {"type": "Lowercase"}}, "it has a normalizer"),
        ({"truncation": {"max_length": 5}}, "it has a truncation"),
        ({"pre_tokenizer": None}, "its pre_tokenizer is not byte-level"),
        ({"pre_tokenizer": {"type": "Whitespace"}}, "its pre_tokenizer is not byte-level"),
        ({"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True}}, "its pre_tokenizer is not byte-level"),
        ({"pre_tokenizer": {"type": "Sequence", "pretokenizers": []}}, "its pre_tokenizer is not byte-level"),
        ({"model": {"type": "WordPiece", "vocab": {}}}, "its model is not byte-pair encoding"),
        ({"model": 3}, "its model is not byte-pair encoding"),
        ({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}}, "no token for the byte 0x00"),
        ({"model": {"type": "BPE", "vocab": {"a": 0, "b": 0}, "merges": []}}, "have the same id"),
        ({"model": {"type": "BPE", "vocab": {"a": 7}, "merges": []}}, "not consecutive from 0"),
        ({"model": {"type": "BPE", "vocab": {"\u72d0": 0}, "merges": []}}, "not in the byte-level alphabet"),
        ({"model": {"type": "BPE", "vocab": [1], "merges": []}}, "no vocabulary"),
        ({"model": {"type": "BPE", "vocab": {"a": "b"}, "merges": []}}, "no vocabulary"),
        ({"added_tokens": {}}, "added_tokens must be a list"),
        ({"added_tokens": [{"id": 0}]}, "added_tokens must each have"),
        ({"decoder": {"type": "unknown"}}, "the tokenizers library cannot read it"),
        ({"extra": 1}, "unknown member 'extra'"),
    ],
)
def test_tokenizers_that_are_not_lossless_and_byte_level_are_refused(changes, message):
    with pytest.raises(DataError, match=rf"^tokenizer\.json: .*{message}"):
        parse_tokenizer(json.dumps(subwords(**changes)).encode(), "tokenizer.json")


def test_dropout_is_refused():
    definition = subwords()
    definition["model"]["dropout"] = 0.1
    with pytest.raises(DataError, match="dropout"):
        parse_tokenizer(json.dumps(definition).encode(), "tokenizer.json")


@pytest.mark.parametrize(("name", "value"), [("id", 300), ("content", "<x>")])
def test_added_tokens_that_are_ambiguous_are_refused(name, value):
    tokens = [{"id": token_id, "content": f"<{token_id}>", "special": True, name: value} for token_id in (300, 301)]
    with pytest.raises(DataError, match=f"two added_tokens have the same {name}"):
        parse_tokenizer(json.dumps(subwords(added_tokens=tokens)).encode(), "tokenizer.json")


def test_an_added_token_that_is_not_special_is_text():
    definition = subwords()
    size = len(definition["model"]["vocab"])
    marks = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    definition["added_tokens"] = [
        {"id": size, "content": "<|end_of_text|>", "special": True, **marks},
        {"id": size + 1, "content": "<think>", "special": False, **marks},
    ]
    tokenizer = parse_tokenizer(json.dumps(definition).encode(), "tokenizer.json")
    assert tokenizer.end_of_text == size
    assert tokenizer.decode([size, size + 1]) == "<think>"
    text = "the<|end_of_text|><think>"
    ids = tokenizer.encode(text)
    assert size not in ids
    assert tokenizer.decode(ids) == text


def test_a_tokenizer_too_large_to_be_read_is_not_written(tmp_path: Path) -> None:
    words = tuple(f"{number:x}".rjust(7200, "w") for number in range(3000))
    with pytest.raises(DataError, match="the limit is 20,971,520"):
        save_tokenizer(WordTokenizer(words), tmp_path / "tokenizer.json")
    assert list(tmp_path.iterdir()) == []


def test_the_words_of_a_built_tokenizer_are_bounded(tmp_path: Path) -> None:
    tokenizer = build_tokenizer("word", [f"{'w' * 7200} {'v' * 60} " * 3])
    assert isinstance(tokenizer, WordTokenizer)
    assert max(map(len, tokenizer.words)) == 61
    save_tokenizer(tokenizer, tmp_path / "tokenizer.json")
    assert load_tokenizer(tmp_path / "tokenizer.json") == tokenizer
