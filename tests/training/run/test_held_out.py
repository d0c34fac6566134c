"""The held-out text: where it starts, and that the training tokens do not know it."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from run_driver import (
    SEED,
    SMALL,
    TEXT,
    at_step,
    corpus_of,
    outcome,
    resume,
    standard_input,
    start,
    start_ngram_model,
    write_run_json,
)

import quickfox
from quickfox.config.corpus import CorpusOptions
from quickfox.data.corpus_writer import encode_corpus
from quickfox.data.dataset import tokens_digest
from quickfox.data.encoding import Split
from quickfox.errors import DataError
from quickfox.text.corpus import Corpus, open_corpus
from quickfox.tokenizers.serialization import load_tokenizer
from quickfox.training.engine.events import RunStarted, Validated
from quickfox.training.run.record import read_record

SOURCES: dict[str, Callable[[Path], Corpus]] = {
    "file": lambda folder: open_corpus([str(folder / "corpus.txt")], pytest.fail),
    "standard input": lambda _: standard_input(),
    "gzip": lambda folder: open_corpus([str(folder / "corpus.txt.gz")], pytest.fail),
    "files": lambda folder: open_corpus(
        [str(folder / "first.txt"), str(folder / "second.txt")], pytest.fail, options=CorpusOptions(separator="")
    ),
}


@pytest.mark.parametrize("kind", ["char", "byte", "word", "bpe"])
@pytest.mark.parametrize("source", SOURCES)
def test_the_last_tenth_of_the_characters_is_held_out(tmp_path: Path, kind: str, source: str) -> None:
    (tmp_path / "corpus.txt").write_text(TEXT)
    (tmp_path / "corpus.txt.gz").write_bytes(gzip.compress(TEXT.encode()))
    (tmp_path / "first.txt").write_text(TEXT[:1590])  # the training text ends within the second file
    (tmp_path / "second.txt").write_text(TEXT[1590:])
    corpus, notices = SOURCES[source](tmp_path), []
    options = {"tokenizer": kind}
    started, *_ = start_ngram_model(tmp_path, corpus=corpus, options=options, notices=notices)
    assert isinstance(started, RunStarted)
    tokenizer = load_tokenizer(tmp_path / "run" / "tokenizer.json")
    cut = len(TEXT) * 9 // 10
    assert started.training_tokens == len(tokenizer.encode(TEXT[:cut]))
    assert started.validation_tokens == len(tokenizer.encode(TEXT[cut:]))
    record = read_record(tmp_path / "run")
    assert record.training_tokens == record.corpus.training_tokens == started.training_tokens
    assert notices == []


@pytest.mark.parametrize("is_plain", [True, False])
@pytest.mark.parametrize("kind", ["char", "word"])
def test_the_validation_loss_is_that_of_the_held_out_text(tmp_path: Path, is_plain: bool, kind: str) -> None:
    """Whose sentences are others than those of the training text."""
    random = np.random.default_rng(0)
    sentences = [" ".join(random.choice(["the", "fox", "dog", "runs"], 4)) + "\n" for _ in range(300)]
    sentences += ["".join(sorted(sentence)) for sentence in sentences[:30]]
    is_held_out = Split(297, 330, SEED).held_out_documents
    training = [text for text, is_other in zip(sentences, is_held_out, strict=True) if not is_other]
    held_out = [text for text, is_other in zip(sentences, is_held_out, strict=True) if is_other]
    content: str | list[str] = sentences
    if is_plain:
        content = "".join(sentences)
        cut = len(content) * 9 // 10
        training, held_out = [content[:cut]], [content[cut:]]
    options = {"tokenizer": kind, "random_seed": SEED}
    folder = tmp_path / "ngram"
    events = start_ngram_model(folder, corpus=corpus_of(tmp_path, content), options=options)
    (loss,) = (event.validation_loss for event in events if isinstance(event, Validated))
    model = quickfox.load(folder / "run")
    losses = [
        model.evaluate_corpus(corpus_of(tmp_path, "".join(part) if is_plain else part)).nats_per_token
        for part in (held_out, training)
    ]
    assert loss == pytest.approx(losses[0], rel=1e-4 if not is_plain else 0.02)
    assert loss > 1.02 * losses[1]


def test_a_validation_text_of_other_characters_only_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other.txt").write_text("XYZ" * 100)
    other = open_corpus([str(tmp_path / "other.txt")], pytest.fail)
    with pytest.raises(DataError, match=r"other\.txt: none of its characters occurs in the training text"):
        start_ngram_model(tmp_path, validation=other)
    assert not (tmp_path / "run").exists()


def test_without_held_out_text_all_tokens_are_training_tokens(tmp_path: Path) -> None:
    options = {"tokenizer": "word", "validation_split": 0.0}
    started, *_ = start_ngram_model(tmp_path, options=options)
    assert isinstance(started, RunStarted)
    assert started.validation_tokens == 0
    record = read_record(tmp_path / "run")
    assert record.training_tokens == record.corpus.tokens == started.training_tokens


WORD_RUN: dict[str, Any] = {"settings": {**SMALL, "window": 4, "tokenizer": "word", "validation_split": 0.33}}


def as_earlier_version(folder: Path) -> None:
    """Changes a run into one of an earlier version, which encoded the text at once."""
    path, tokens = folder / "run" / "run.json", folder / "run" / "tokens.bin"
    values = json.loads(path.read_text())
    del values["corpus"]["training_tokens"]
    corpus = open_corpus(values["corpus"]["files"], pytest.fail)
    values["corpus"]["tokens"] = encode_corpus(corpus, load_tokenizer(folder / "run" / "tokenizer.json"), tokens).tokens
    values["corpus"]["tokens_sha256"] = tokens_digest(tokens, has_loss_mask=False)
    write_run_json(path, values)


@pytest.mark.usefixtures("fake_training")
@pytest.mark.parametrize("is_earlier", [False, True])
def test_a_resumed_run_encodes_its_text_in_the_same_way(tmp_path: Path, is_earlier: bool) -> None:
    """It ends as a run whose tokens were kept."""
    outcomes = []
    for folder in (tmp_path / "kept", tmp_path / "encoded again"):
        start(folder, **WORD_RUN, stop=at_step(30))
        if is_earlier:
            as_earlier_version(folder)
        tokens = (folder / "run" / "tokens.bin").read_bytes()
        if folder.name == "encoded again":
            (folder / "run" / "tokens.bin").unlink()
        resume(folder, stop=at_step(40))
        assert (folder / "run" / "tokens.bin").read_bytes() == tokens
        resume(folder)
        outcomes.append(outcome(folder))
    assert outcomes[0] == outcomes[1]


@pytest.mark.usefixtures("fake_training")
def test_the_tokens_of_an_earlier_run_are_split_as_before(tmp_path: Path) -> None:
    start(tmp_path, **WORD_RUN, stop=at_step(10))
    as_earlier_version(tmp_path)
    record = read_record(tmp_path / "run")
    assert record.training_tokens == int(record.corpus.tokens * 0.67)
    started = resume(tmp_path, stop=at_step(20))[0]
    assert isinstance(started, RunStarted)
    assert (started.training_tokens, started.validation_tokens) == (
        record.training_tokens,
        record.corpus.tokens - record.training_tokens,
    )


@pytest.mark.parametrize(("kind", "differs"), [("char", True), ("byte", False), ("word", True), ("bpe", True)])
def test_repeating_a_run_of_an_earlier_version_without_its_tokenizer_gives_a_notice_if_it_differs(
    tmp_path: Path, kind: str, differs: bool
) -> None:
    text = TEXT + "lynx lynx " * 20
    first, again = tmp_path / "first", tmp_path / "again"
    start_ngram_model(first, text=text, options={"tokenizer": kind, "validation_split": 0.0})
    path = first / "run" / "run.json"
    values = json.loads(path.read_text())
    del values["corpus"]["training_tokens"], values["corpus"]["validation_targets"]
    write_run_json(path, values | {"validation_split": 0.1})  # the tokenizer is that of the whole text
    path = path.rename(tmp_path / "run.json")
    notices: list[str] = []
    start(again, text=text, config_from=path, settings={}, notices=notices)
    assert len([notice for notice in notices if "an earlier version" in notice]) == differs


def test_documents_are_repeated_with_their_tokenizer(tmp_path: Path) -> None:
    """Its size limits the words, not the end-of-text token too."""
    documents = [" ".join(f"w{n % 40}" for n in range(start, start + 30)) for start in range(100)]
    options = {"tokenizer": "word", "vocabulary_size": 270}
    for folder, request in (
        (tmp_path / "first", {"options": {**options, "architecture": "ngram"}}),
        (tmp_path / "again", {"config_from": tmp_path / "first" / "run"}),
    ):
        start(folder, corpus=corpus_of(tmp_path, documents), settings={}, **request)
    first, again = (read_record(tmp_path / name / "run") for name in ("first", "again"))
    assert first.model.vocabulary_size == 271
    assert again.vocabulary_sha256 == first.vocabulary_sha256


def test_a_run_is_repeated_only_with_its_validation_text(tmp_path: Path) -> None:
    held_out = tmp_path / "held_out.txt"
    held_out.write_text("the lazy dog\n" * 20)
    first = tmp_path / "first"
    validation = {"validation": open_corpus([str(held_out)], pytest.fail)}
    start_ngram_model(first, **validation)
    with pytest.raises(DataError, match=r"was validated on another text: repeat it with --validation .*held_out\.txt"):
        start(tmp_path / "without", config_from=first / "run", settings={})
    start(tmp_path / "again", config_from=first / "run", settings={}, **validation)
    records = [read_record(tmp_path / name / "run") for name in ("first", "again")]
    assert records[0].corpus.tokens_sha256 == records[1].corpus.tokens_sha256
