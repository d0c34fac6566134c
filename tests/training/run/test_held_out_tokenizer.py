"""The tokenizer of a run does not know its held-out text, and no token reaches from one text to another."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from run_driver import CONTEXT, SEED, TEXT, corpus_of, sha256, start_ngram_model, tokenizer_of

from quickfox.checkpoints.run_directory import list_checkpoint_directories
from quickfox.config.training import TrainingRequest
from quickfox.data.encoding import Split
from quickfox.errors import DataError, UsageError
from quickfox.text.corpus import open_corpus
from quickfox.tokenizers.serialization import format_tokenizer, load_tokenizer
from quickfox.training.engine.events import RunRequest, RunStarted
from quickfox.training.run.dataset import choose_tokenizer, encode_corpus_checked
from quickfox.training.run.record import read_record
from quickfox.training.run.transfer import resolve_request

WORDS = st.lists(st.sampled_from(["fox", "the", " dog", " é狐", ", ", "\n", "aa", "ab"]), max_size=60).map("".join)
every_kind = pytest.mark.parametrize("kind", ["char", "byte", "word", "bpe"])


def make_folder(path: Path) -> Path:
    path.mkdir()
    return path


@every_kind
@settings(max_examples=25)
@given(training=WORDS, held_out=st.tuples(WORDS, WORDS))
def test_held_out_text_does_not_reach_the_tokenizer(
    tmp_path_factory: pytest.TempPathFactory, kind: str, training: str, held_out: tuple[str, str]
) -> None:
    """`training` and a text of the same length, whatever it is."""
    folder = tmp_path_factory.mktemp("text")
    training += "x"
    files = set()
    for other in held_out:
        text = training + (other + "q" * len(training))[: len(training)]
        tokenizer, split = tokenizer_of(corpus_of(folder, text), tokenizer=kind, validation_split=0.5)
        assert split == Split(len(training), None, SEED)
        files.add(format_tokenizer(tokenizer))
    assert files == {format_tokenizer(tokenizer_of(corpus_of(folder, training), tokenizer=kind, validation_split=0)[0])}


@every_kind
@settings(max_examples=25)
@given(training=st.lists(WORDS.filter(bool), min_size=1, max_size=4), held_out=st.data())
def test_held_out_documents_do_not_reach_the_tokenizer(
    tmp_path_factory: pytest.TempPathFactory, kind: str, training: list[str], held_out: Any
) -> None:
    """Which of them are held out depends on their number and the random seed alone."""
    folder = tmp_path_factory.mktemp("text")
    size = len(training)
    is_held_out = Split(size, 2 * size, SEED).held_out_documents
    files = set()
    training[0] += "x"
    for _ in range(2):
        kept, others = iter(training), iter(held_out.draw(st.lists(WORDS.filter(bool), min_size=size, max_size=size)))
        documents = [next(others if each else kept) for each in is_held_out]
        tokenizer, split = tokenizer_of(corpus_of(folder, documents), tokenizer=kind, validation_split=0.5)
        assert split == Split(size, 2 * size, SEED)
        files.add(format_tokenizer(tokenizer))
    assert files == {format_tokenizer(tokenizer_of(corpus_of(folder, training), tokenizer=kind, validation_split=0)[0])}


@every_kind
def test_a_validation_text_does_not_reach_the_tokenizer(tmp_path: Path, kind: str) -> None:
    """Nor the model of the training text; it is encoded whole, and its unknown characters are told of."""
    held_out = "zebra é龍 zebra\n" * 20
    outcomes = []
    for name, text in (("one", held_out), ("other", TEXT)):
        validation = corpus_of(make_folder(tmp_path / f"{name} text"), text)
        started, *_ = start_ngram_model(tmp_path / name, options={"tokenizer": kind}, validation=validation)
        assert isinstance(started, RunStarted)
        run = tmp_path / name / "run"
        tokenizer = load_tokenizer(run / "tokenizer.json")
        outcomes.append(
            (format_tokenizer(tokenizer), sha256(list_checkpoint_directories(run)[0] / "model.safetensors"))
        )
        assert started.validation_tokens == len(tokenizer.encode(text, Counter()))
        assert read_record(run).corpus.validation_files == (str(tmp_path / f"{name} text" / "corpus.txt"),)
        told = "40 characters of the held-out text do not occur in the training text: 'é' (U+00E9), '龍' (U+9F8D)"
        assert (told in started.advice) == (kind == "char" and text == held_out)
        assert any("100% of the held-out text also occurs" in line for line in started.advice) == (text == TEXT)
        assert any("has only" in line for line in started.advice) == (started.validation_tokens <= 1000)
    assert outcomes[0] == outcomes[1]


@every_kind
@pytest.mark.parametrize("is_plain", [True, False])
def test_training_text_reaches_the_tokenizer(tmp_path: Path, kind: str, is_plain: bool) -> None:
    """Up to its last character; without held-out text, the whole text does."""
    if kind == "byte":
        pytest.skip("does not depend on the text")
    number = int(np.flatnonzero(Split(9, 10, SEED).held_out_documents)[0])
    documents = ["fox " * 5] * 10
    documents[number if not is_plain else 9] = "zebra " * 5
    content = "".join(documents[:-1]).ljust(9 * 30) + documents[-1] if is_plain else documents
    corpus = corpus_of(tmp_path, content)
    held_out, _ = tokenizer_of(corpus, tokenizer=kind)
    whole, split = tokenizer_of(corpus, tokenizer=kind, validation_split=0.0)
    assert split is None
    fox, zebra = (b"f", b"z") if kind == "char" else (b" fox", b" zebra")
    assert fox in held_out.tokens
    assert zebra not in held_out.tokens
    assert zebra in whole.tokens


@pytest.mark.parametrize("kind", ["word", "bpe"])
def test_tokens_do_not_reach_from_one_document_to_the_next(tmp_path: Path, kind: str) -> None:
    """Nor from a prompt to its completion: no text has such a token."""
    words = ["one", "two", "six", "ten"]
    documents = [{"prompt": f"{word} is", "completion": " yes"} for word in words * 30]
    path = tmp_path / "corpus.jsonl"
    path.write_text("".join(json.dumps(each) + "\n" for each in documents))
    tokenizer, _ = tokenizer_of(open_corpus([str(path)], pytest.fail), tokenizer=kind)
    assert {b" is", b" yes", b"one"} <= set(tokenizer.tokens)
    assert {token for token in tokenizer.tokens if b"yes" in token} == {b" yes", *({b"yes"} if kind == "bpe" else ())}


@pytest.mark.parametrize(("documents", "split", "message"), [(1, 0.1, "the only document"), (2, 0.9, "all 2 docum")])
def test_documents_that_are_all_held_out_are_refused(
    tmp_path: Path, documents: int, split: float, message: str
) -> None:
    corpus = corpus_of(tmp_path, ["some text"] * documents)
    with pytest.raises(DataError, match=f"validation_split {split} holds out {message}"):
        tokenizer_of(corpus, validation_split=split)
    assert tokenizer_of(corpus, validation_split=0.0)[1] is None


@pytest.mark.parametrize("is_plain", [True, False])
def test_a_text_that_changes_while_it_is_read_is_refused(tmp_path: Path, is_plain: bool) -> None:
    corpus = corpus_of(tmp_path, TEXT if is_plain else [TEXT] * 20)
    resolved = resolve_request(RunRequest(training=TrainingRequest(tokenizer="word")))
    tokenizer, split = choose_tokenizer(corpus, None, resolved, CONTEXT)
    corpus_of(tmp_path, TEXT * 2 if is_plain else [TEXT] * 40)
    with pytest.raises(DataError, match="changed while it was read"):
        encode_corpus_checked(corpus, tokenizer, tmp_path / "tokens.bin", split, resolved, pytest.fail)


def test_a_validation_text_of_another_form_is_refused(tmp_path: Path) -> None:
    corpus, validation = corpus_of(tmp_path, TEXT), corpus_of(tmp_path, [TEXT])
    resolved = resolve_request(RunRequest(training=TrainingRequest(), validation=("corpus.jsonl",)))
    tokenizer, split = choose_tokenizer(corpus, None, resolved, CONTEXT)
    assert split is None
    with pytest.raises(DataError, match="the corpus is plain text and validation is documents"):
        encode_corpus_checked(corpus, tokenizer, tmp_path / "tokens.bin", split, resolved, pytest.fail, validation)


def test_a_validation_text_and_a_split_exclude_each_other() -> None:
    with pytest.raises(UsageError, match="validation_split"):
        resolve_request(RunRequest(training=TrainingRequest(validation_split=0.2), validation=("held.txt",)))


@pytest.mark.parametrize(("text", "suits"), [("กขคงจฉชซ" * 300, False), ("the quick fox " * 200, True)])
def test_a_tokenizer_that_does_not_suit_a_text_is_told_of(tmp_path: Path, text: str, *, suits: bool) -> None:
    started, *_ = start_ngram_model(tmp_path, text=text, options={"tokenizer": "word"})
    assert isinstance(started, RunStarted)
    told = [line for line in started.advice if "does not suit" in line]
    assert told == (
        []
        if suits
        else [
            "tokenizer word does not suit this text: its 2,400 characters are 7,200 tokens, most of them single bytes; "
            "choose tokenizer bpe or char"
        ]
    )
