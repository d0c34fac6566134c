"""The text of a run: the tokenizer that suits it, and its tokens in a file for as long as the run trains."""

import hashlib
import math
from collections.abc import Callable
from pathlib import Path

from quickfox.config.training import TrainingRequest
from quickfox.data.dataset import EncodedCorpus, encode_corpus, remove_tokens, token_paths, tokens_digest
from quickfox.errors import DataError, NoInputError, UsageError
from quickfox.files.atomic import output_errors, sync
from quickfox.text.corpus import STANDARD_INPUT, Corpus, open_corpus
from quickfox.text.jsonl import has_documents, iter_texts
from quickfox.text.vocabulary import count_characters, describe_characters
from quickfox.tokenizers.base import Tokenizer
from quickfox.tokenizers.build import build_tokenizer
from quickfox.tokenizers.character import CharacterTokenizer
from quickfox.tokenizers.serialization import format_tokenizer, load_tokenizer
from quickfox.training.engine.events import RunContext
from quickfox.training.run.record import CorpusRecord, RunRecord
from quickfox.training.run.transfer import extend_vocabulary

TOKENIZER_FILE = "tokenizer.json"


def choose_tokenizer(
    corpus: Corpus, vocabulary_path: Path | None, request: TrainingRequest, start: Tokenizer | None = None
) -> Tokenizer:
    """The tokenizer in the file, or the one asked for, built from the corpus, or that of the model to start from.

    Raises:
        UsageError: a file, and yet another kind or size is asked for.
        QuickfoxError: any of its other children: the file or the corpus cannot be read, or is not what it should be.
    """
    if vocabulary_path is None and start is not None and request.tokenizer is None and request.vocabulary_size is None:
        return _ending(corpus, extend_vocabulary(start, set(count_characters(iter_texts(corpus)))))
    if vocabulary_path is None:
        return _ending(
            corpus, build_tokenizer(request.tokenizer or "char", iter_texts(corpus), request.vocabulary_size)
        )
    for name, value in (("--tokenizer", request.tokenizer), ("--vocabulary-size", request.vocabulary_size)):
        if value is not None:
            raise UsageError(f"{name} and --vocab exclude each other: give one")
    return _ending(corpus, load_tokenizer(vocabulary_path))


def _ending(corpus: Corpus, tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer, with an end of text if the corpus is one of documents."""
    return tokenizer.with_end_of_text() if has_documents(corpus) else tokenizer


def encode_corpus_checked(
    corpus: Corpus,
    tokenizer: Tokenizer,
    path: Path,
    window: int,
    validation_split: float,
    notice: Callable[[str], None],
) -> EncodedCorpus:
    """Writes the tokens of a corpus to `path`, if tokenizer and corpus fit each other and the settings.

    Raises:
        DataError: the tokenizer lacks characters, and not only rare ones; or the text is too short for the window.
        NoInputError: nothing of the text is left.
        QuickfoxError: any of its other children: reading or writing failed.
    """
    encoded = encode_corpus(corpus, tokenizer, path)
    if encoded.unknown:
        description = describe_characters(sorted(encoded.unknown))
        if not isinstance(tokenizer, CharacterTokenizer) or tokenizer.vocabulary.min_count == 1:
            raise DataError(
                f"the vocabulary lacks characters of the corpus: {description}; "
                f"build one with `llm build-vocab`, or leave --vocab out"
            )
        unknown_counts = encoded.unknown.total()
        notice(f"{unknown_counts:,} characters of the corpus that the vocabulary leaves out as rare: {description}")
    if encoded.tokens == 0:
        raise NoInputError("the corpus is empty")
    minimum = math.ceil((window + 1) / (1 - validation_split))  # the last target must be in the training share too
    if encoded.tokens < minimum:
        unit = "characters" if tokenizer.kind == "char" else "tokens"
        raise DataError(
            f"the corpus has {encoded.tokens:,} {unit}, but a window of {window} needs at least {minimum:,}: "
            f"add text, or choose a shorter --window"
        )
    return encoded


def describe_corpus(corpus: Corpus, encoded: EncodedCorpus, tokens_path: Path) -> CorpusRecord:
    """What a run writes down of its corpus, whose tokens are in `tokens_path`.

    Raises:
        StorageError: the tokens, of a text that cannot be read again, cannot be flushed to the disk.
    """
    if STANDARD_INPUT in corpus.names:
        with output_errors(tokens_path):
            for path in token_paths(tokens_path):
                sync(path)
    return CorpusRecord(
        files=tuple(name if name == STANDARD_INPUT else str(Path(name).absolute()) for name in corpus.names),
        characters=encoded.characters,
        tokens=encoded.tokens,
        sha256=encoded.digest,
        has_documents=has_documents(corpus),
        tokens_sha256=encoded.tokens_digest,
    )


def ensure_tokens(run: Path, record: RunRecord, tokens_path: Path, run_context: RunContext) -> Tokenizer:
    """Makes sure that `tokens_path` holds the tokens of a run that was begun before; returns its tokenizer.

    They are as the run left them, or else, if they are gone or damaged, encoded from its text once more.

    Raises:
        DataError: the text or the tokenizer is not the one the run was begun with.
        NoInputError: the text has gone.
        QuickfoxError: any of its other children: reading or writing failed.
    """
    tokenizer = load_tokenizer(run / TOKENIZER_FILE)
    if tokenizer_digest(tokenizer) != record.vocabulary_sha256:
        raise DataError(f"{run}: the vocabulary is not the one that this run was begun with")
    found = tokens_digest(tokens_path, has_loss_mask=record.corpus.has_documents)
    if found is not None and found == record.corpus.tokens_sha256:
        return tokenizer
    if STANDARD_INPUT in record.corpus.files:
        if found is None:
            raise NoInputError(f"{tokens_path} is gone, and the text came from standard input: start a new run")
        raise DataError(f"{tokens_path} is damaged, and the text came from standard input: start a new run")
    corpus = open_corpus(record.corpus.files, run_context.notify)
    corpus = corpus.with_progress(run_context.start_progress("encoding", corpus.size))
    if encode_corpus(corpus, tokenizer, tokens_path).digest != record.corpus.sha256:
        remove_tokens(tokens_path)
        raise DataError(
            f"the text has changed since {run} was begun ({record.corpus.files[0]}): restore it, or start a new run"
        )
    return tokenizer


def tokenizer_digest(tokenizer: Tokenizer) -> str:
    """The sha256 of the tokenizer's file, in hexadecimal."""
    return hashlib.sha256(format_tokenizer(tokenizer)).hexdigest()
