"""Encode corpora to token files, read them back and split them."""

import hashlib
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quickfox.data import dataset
from quickfox.data.corpus_writer import EncodedCorpus, encode_corpus
from quickfox.data.dataset import (
    Tokens,
    collect_tokens,
    count_target_bytes,
    open_corpus_tokens,
    remove_tokens,
    split_tokens,
    token_paths,
    tokens_digest,
)
from quickfox.data.encoding import Split, training_share
from quickfox.data.token_file import TokenFile
from quickfox.errors import CannotCreateError, DataError, ExitStatus, NoInputError, StorageError
from quickfox.text.corpus import Corpus, open_corpus
from quickfox.text.vocabulary import Vocabulary, build_vocabulary
from quickfox.tokenizers.build import build_tokenizer
from quickfox.tokenizers.character import CharacterTokenizer


def corpus_of(text: str, folder: Path) -> Corpus:
    path = folder / "corpus.txt"
    path.write_bytes(text.encode())
    return open_corpus([str(path)], notice=pytest.fail)


def tokenizer_of(text: str) -> CharacterTokenizer:
    return CharacterTokenizer(build_vocabulary(Counter(text)))


def test_encode_worked_example(tmp_path: Path):
    corpus = corpus_of("abcab", tmp_path)
    encoded = encode_corpus(corpus, tokenizer_of("ab"), tmp_path / "tokens.bin")
    tokens_sha256 = hashlib.sha256(bytes([0, 1, 0, 1])).hexdigest()
    assert encoded == EncodedCorpus(
        tokens=4,
        training_tokens=4,
        characters=5,
        validation_characters=0,
        documents=0,
        unknown=Counter("c"),
        held_out_unknown=Counter(),
        digest=corpus.digest(),
        tokens_digest=tokens_sha256,
    )
    assert (tmp_path / "tokens.bin").read_bytes() == bytes([0, 1, 0, 1])


def test_two_byte_ids_are_little_endian(tmp_path: Path):
    tokenizer = CharacterTokenizer(Vocabulary(tuple(chr(0x4E00 + i) for i in range(300))))
    encode_corpus(corpus_of("\u4e01\u4f2b", tmp_path), tokenizer, tmp_path / "tokens.bin")
    assert (tmp_path / "tokens.bin").read_bytes() == bytes([1, 0, 0x2B, 1])
    assert TokenFile(tmp_path / "tokens.bin", tokenizer.token_dtype)[:].tolist() == [1, 0x12B]


@given(
    text=st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1).filter(
        lambda t: not t.startswith("\ufeff")
    )
)
def test_round_trip_of_any_text(tmp_path_factory, text):
    folder = tmp_path_factory.mktemp("store")
    tokenizer = tokenizer_of(text)
    encoded = encode_corpus(corpus_of(text, folder), tokenizer, folder / "tokens.bin")
    assert encoded.tokens == encoded.characters == len(text)
    assert tokenizer.decode(TokenFile(folder / "tokens.bin", tokenizer.token_dtype)[:]) == text


def test_a_text_of_several_chunks(tmp_path: Path):
    text = "the quick brown fox – " * 100_000  # 2.4 MB; some chunk ends within a dash
    tokenizer = tokenizer_of(text)
    corpus = corpus_of(text, tmp_path)
    assert len(list(corpus.iter_text())) > 2
    encoded = encode_corpus(corpus, tokenizer, tmp_path / "tokens.bin")
    ids = TokenFile(tmp_path / "tokens.bin", tokenizer.token_dtype)[:]
    assert encoded.tokens == len(ids) == len(text)
    assert np.array_equal(ids, tokenizer.encode(text))


@pytest.mark.parametrize("shard_bytes", [2, 6, 20, 4000])
def test_shards_contain_the_same_tokens_and_the_digest_detects_damage(tmp_path: Path, shard_bytes: int) -> None:
    tokenizer = CharacterTokenizer(Vocabulary(tuple(chr(0x4E00 + i) for i in range(300))))
    text = "".join(chr(0x4E00 + i) for i in (1, 299, 3, 256, 5, 6, 7, 8, 9, 10))
    path = tmp_path / "tokens.bin"
    encoded = encode_corpus(corpus_of(text, tmp_path), tokenizer, path, shard_bytes=shard_bytes)
    assert len(token_paths(path)) == -(-20 // shard_bytes)
    tokens = open_corpus_tokens(path, tokenizer, has_documents=False)
    assert tokenizer.decode(tokens.ids[:]) == text
    assert tokens_digest(path, has_loss_mask=False) == encoded.tokens_digest
    whole = encode_corpus(corpus_of(text, tmp_path), tokenizer, path)
    assert token_paths(path) == [path]  # the earlier shards are removed
    assert whole.tokens_digest == encoded.tokens_digest
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert tokens_digest(path, has_loss_mask=False) != encoded.tokens_digest
    remove_tokens(path)
    assert tokens_digest(path, has_loss_mask=False) is None


def test_a_corpus_of_unknown_characters_only(tmp_path: Path):
    encoded = encode_corpus(corpus_of("zzz", tmp_path), tokenizer_of("ab"), tmp_path / "tokens.bin")
    assert (encoded.tokens, encoded.characters, encoded.unknown) == (0, 3, {"z": 3})
    ids = TokenFile(tmp_path / "tokens.bin", np.uint8)[:]
    assert ids.shape == (0,)
    assert ids.dtype == np.uint8


def test_open_a_missing_file(tmp_path: Path):
    with pytest.raises(NoInputError, match=r"tokens\.bin: no such file"):
        TokenFile(tmp_path / "tokens.bin", np.uint8)[:]


def test_tokens_that_cannot_be_removed(tmp_path: Path):
    (tmp_path / "tokens.bin").mkdir()
    with pytest.raises(CannotCreateError, match=r"cannot remove .*tokens\.bin: "):
        remove_tokens(tmp_path / "tokens.bin")


def test_open_a_directory(tmp_path: Path):
    (tmp_path / "tokens.bin").mkdir()
    with pytest.raises((StorageError, DataError), match=r"tokens\.bin"):
        TokenFile(tmp_path / "tokens.bin", np.uint8)[:]


def test_a_file_with_part_of_an_id(tmp_path: Path):
    (tmp_path / "tokens.bin").write_bytes(b"\1\0\2")
    with pytest.raises(DataError, match=r"tokens\.bin: 3 bytes are not a whole number of 2-byte token ids") as failure:
        TokenFile(tmp_path / "tokens.bin", np.uint16)[:]
    assert failure.value.exit_status == ExitStatus.BAD_DATA == 65


def test_no_file_is_left_if_the_corpus_is_not_text(tmp_path: Path):
    (tmp_path / "corpus.txt").write_bytes(b"a" * 2**20 + b"\xff")
    corpus = open_corpus([str(tmp_path / "corpus.txt")], notice=pytest.fail)
    with pytest.raises(DataError, match="not UTF-8 at byte 1048576 "):
        encode_corpus(corpus, tokenizer_of("a"), tmp_path / "tokens.bin")
    assert not (tmp_path / "tokens.bin").exists()


def test_encode_to_a_missing_directory(tmp_path: Path):
    with pytest.raises(CannotCreateError, match="nowhere") as failure:
        encode_corpus(corpus_of("a", tmp_path), tokenizer_of("a"), tmp_path / "nowhere" / "tokens.bin")
    assert failure.value.exit_status == ExitStatus.CANNOT_CREATE == 73


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limits")
def test_a_full_disk(tmp_path: Path):
    import resource

    corpus = corpus_of("ab" * 10_000, tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))  # Python ignores SIGXFSZ, so writing fails
    try:
        with pytest.raises(StorageError, match=r"cannot write .*tokens\.bin") as failure:
            encode_corpus(corpus, tokenizer_of("ab"), tmp_path / "tokens.bin")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert failure.value.exit_status == ExitStatus.IO_ERROR == 74
    assert not (tmp_path / "tokens.bin").exists()


@pytest.mark.parametrize(
    ("n", "fraction", "expected"),
    [(10, 0.1, 1), (10, 0.0, 0), (100, 0.29, 29), (1, 0.1, 1), (0, 0.5, 0), (15, 0.1, 2), (10, 0.9, 9)],
)
def test_the_validation_tokens_are_the_last_ones(n, fraction, expected):
    ids = np.arange(n, dtype=np.uint8)
    train, validation = split_tokens(Tokens(ids), tokenizer_of("ab"), training_share(len(ids), fraction), 0)
    assert len(validation) == expected
    assert [*train.ids, *validation.ids] == list(range(n))


TEXTS = st.text(st.sampled_from("ab, é狐\n"), min_size=1, max_size=60)


@pytest.mark.parametrize("kind", ["char", "byte", "word", "bpe"])
@given(text=TEXTS, share=st.floats(0, 1))
def test_no_token_belongs_to_both_parts_of_a_text(tmp_path_factory: Any, kind: Any, text: str, share: float) -> None:
    folder = tmp_path_factory.mktemp("split")
    tokenizer = build_tokenizer(kind, [text], min_count=None if kind == "byte" else 1)
    characters = int(share * len(text))
    split = Split(characters, None, 0)
    encoded = encode_corpus(corpus_of(text, folder), tokenizer, folder / "tokens.bin", split)
    tokens = open_corpus_tokens(folder / "tokens.bin", tokenizer, has_documents=False)
    assert (encoded.tokens, encoded.characters) == (len(tokens), len(text))
    training, held_out = split_tokens(tokens, tokenizer, encoded.training_tokens, 0)
    assert training.ids[:].tolist() == tokenizer.encode(text[:characters]).tolist()
    assert held_out.ids[:].tolist() == tokenizer.encode(text[characters:]).tolist()


def test_unknown_characters_count_in_the_length_of_the_training_text(tmp_path: Path) -> None:
    encoded = encode_corpus(
        corpus_of("azzab", tmp_path), tokenizer_of("ab"), tmp_path / "tokens.bin", Split(3, None, 0)
    )
    assert (encoded.training_tokens, encoded.tokens) == (1, 3)


def test_a_split_returns_views():
    ids = np.arange(10, dtype=np.uint8)
    assert all(np.shares_memory(part.ids, ids) for part in split_tokens(Tokens(ids), tokenizer_of("ab"), 5, 0))


CHUNKS = [np.array(chunk, dtype=np.uint16) for chunk in ([1, 2, 3], [], [65535])]


@pytest.mark.parametrize("bytes_in_memory", [0, 7, 8, 1000])
def test_collect_tokens_in_memory_and_in_a_file(monkeypatch: pytest.MonkeyPatch, bytes_in_memory: int) -> None:
    monkeypatch.setattr(dataset, "BYTES_IN_MEMORY", bytes_in_memory)
    ids = collect_tokens(CHUNKS, np.uint16)
    assert ids.tolist() == [1, 2, 3, 65535]
    assert ids.dtype == np.uint16
    assert isinstance(ids, np.memmap) == (bytes_in_memory < 8)


def test_collect_no_tokens() -> None:
    assert collect_tokens([], np.uint8).tolist() == []


def test_a_full_disk_is_a_storage_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "SpooledTemporaryFile", fail)
    with pytest.raises(StorageError, match="cannot write tokens to a temporary file in "):
        collect_tokens(CHUNKS, np.uint16)


def test_bytes_are_those_of_the_predicted_tokens() -> None:
    tokenizer = CharacterTokenizer(Vocabulary(("a", "ß", "語"))).with_end_of_text()
    ids = np.array([2, 0, 1, 2, 3, 1], np.uint8)  # 3 is the end of text
    assert count_target_bytes(Tokens(ids), tokenizer) == 1 + 2 + 3 + 0 + 2
    mask = np.array([True, True, False, True, True, False])
    assert count_target_bytes(Tokens(ids, mask), tokenizer) == 1 + 3
    assert count_target_bytes(Tokens(ids[:0]), tokenizer) == 0
