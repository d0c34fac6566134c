"""The text of a run: its tokenizer, and its token ids in files that are kept while the run trains."""

import hashlib
import math
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import chain
from pathlib import Path

from quickfox.checkpoints.run_directory import TOKENIZER_FILE, TOKENS_FILE
from quickfox.config.schema import exclusive_error
from quickfox.data.dataset import (
    EncodedCorpus,
    Tokens,
    encode_corpus,
    open_corpus_tokens,
    remove_tokens,
    token_paths,
    tokens_digest,
    training_share,
)
from quickfox.errors import DataError, NoInputError
from quickfox.files.atomic import sync
from quickfox.files.errors import translate_write_errors
from quickfox.text.corpus import Corpus, open_corpus
from quickfox.text.sources import STANDARD_INPUT
from quickfox.text.vocabulary import count_characters, describe_characters
from quickfox.tokenizers.base import Tokenizer
from quickfox.tokenizers.build import build_tokenizer, check_tokenizer_settings
from quickfox.tokenizers.character import CharacterTokenizer
from quickfox.tokenizers.serialization import format_tokenizer, load_tokenizer
from quickfox.training.engine.events import RunContext
from quickfox.training.planning.auto_config import choose_window
from quickfox.training.planning.time_budget import MAX_VALIDATION_TOKENS
from quickfox.training.run.record import CorpusRecord, RunRecord
from quickfox.training.run.transfer import ResolvedRequest, extend_vocabulary


def choose_tokenizer(
    corpus: Corpus, vocabulary_path: Path | None, resolved: ResolvedRequest, run_context: RunContext
) -> tuple[Tokenizer, int | None]:
    """Loads the tokenizer of a file, extends that of a pretrained model, or builds the requested one from the corpus.

    It has an end-of-text token if the corpus consists of documents. A requested kind or size of tokenizer replaces the
    pretrained tokenizer. Words and subwords are those of the training text; characters are those of the whole corpus,
    because there is no token for unknown ones.

    Returns:
        The tokenizer, and the number of characters or documents to train on; None: no text is held out.

    Raises:
        UsageError: both a file and a kind or size of tokenizer are requested.
        QuickfoxError: any other subclass: the file or the corpus cannot be read or is invalid.
    """
    request, pretrained = resolved.training, resolved.pretrained
    requested = [name for name in ("tokenizer", "vocabulary_size") if getattr(request, name) is not None]
    given: Tokenizer | None = None
    if vocabulary_path is not None:
        if requested:
            raise exclusive_error(requested[0], "vocab")
        given = load_tokenizer(vocabulary_path)
    elif pretrained is not None and not requested:
        given = pretrained.bundle.tokenizer
    kind = given.kind if given else request.tokenizer or "char"
    if given is None:
        check_tokenizer_settings(kind, request.vocabulary_size)

    def read(units: int | None = None) -> Iterator[str]:
        on_read, rest = run_context.start_progress("vocabulary", corpus.size), corpus.size

        def advance(count: int) -> None:
            nonlocal rest
            rest -= count
            on_read(count)

        yield from chain.from_iterable(corpus.with_progress(advance).iter_spans(units))
        on_read(rest)  # the held-out text, which is not read

    counts = count_characters(read()) if kind == "char" and vocabulary_path is None else None
    units = _count_training_units(corpus, counts, resolved.validation_split, run_context)
    if given is None:
        text = read(units) if counts is None else ()
        tokenizer = build_tokenizer(kind, text, request.vocabulary_size, character_counts=counts)
    else:
        tokenizer = given if counts is None else extend_vocabulary(given, set(counts))
    return tokenizer.with_end_of_text() if corpus.has_documents else tokenizer, units


def _count_training_units(
    corpus: Corpus, character_counts: Counter[str] | None, validation_split: float, run_context: RunContext
) -> int | None:
    """The number of characters of a plain text, or of documents, to train on; None: no text is held out.

    The corpus is read for it unless the count of each of its characters is known.
    """
    if validation_split == 0.0:
        return None
    if character_counts is not None and not corpus.has_documents:
        return training_share(character_counts.total(), validation_split)
    units = corpus.with_progress(run_context.start_progress("counting", corpus.size)).count_units()
    training_units = training_share(units, validation_split)
    if corpus.has_documents and units and not training_units:
        count = "the only document" if units == 1 else f"all {units} documents"
        raise DataError(
            f"validation_split {validation_split:g} holds out {count} of the corpus: add documents, or choose "
            f"validation_split 0",
            "validation_split",
        )
    return training_units


def encode_corpus_checked(
    corpus: Corpus,
    tokenizer: Tokenizer,
    path: Path,
    training_units: int | None,
    resolved: ResolvedRequest,
    notify: Callable[[str], None],
) -> EncodedCorpus:
    """Writes the token ids of a corpus to `path` if the tokenizer covers it and it is long enough to train on.

    Raises:
        DataError: the tokenizer lacks characters other than rare ones, the training text is too short for the window,
            or the corpus changed after its characters were counted.
        NoInputError: no tokens remain.
        QuickfoxError: any other subclass: reading or writing failed.
    """
    encoded = encode_corpus(corpus, tokenizer, path, training_units)
    if encoded.unknown:
        description = describe_characters(sorted(encoded.unknown))
        if not isinstance(tokenizer, CharacterTokenizer) or tokenizer.vocabulary.min_count == 1:
            raise DataError(
                f"the vocabulary lacks characters of the corpus: {description}; omit vocab, or run `llm build-vocab`",
                "vocab",
            )
        notify(f"{encoded.unknown.total():,} characters of the corpus are too rare for the vocabulary: {description}")
    if encoded.tokens == 0:
        raise NoInputError("the corpus is empty")
    split = resolved.validation_split
    if training_units not in (None, training_share(encoded.characters, split)) and not corpus.has_documents:
        raise DataError("the corpus changed while it was read: start the run again")
    _check_length(encoded, tokenizer, resolved)
    return encoded


def _check_length(encoded: EncodedCorpus, tokenizer: Tokenizer, resolved: ResolvedRequest) -> None:
    """Raises DataError if the training text is too short for the window."""
    window = choose_window(resolved.training)
    minimum = window + 1  # the last target must be a training token too
    if encoded.training_tokens >= minimum:
        return
    unit = "characters" if tokenizer.kind == "char" else "tokens"
    size = f"the training text has {encoded.training_tokens:,} {unit}"
    whole_minimum = math.ceil(round(minimum / (1.0 - resolved.validation_split), 6))
    if encoded.tokens < whole_minimum:
        size, minimum = f"the corpus has {encoded.tokens:,} {unit}", whole_minimum
    if resolved.training.architecture == "ngram":
        raise DataError(f"{size}, but an n-gram model needs at least {minimum:,}: add text")
    raise DataError(
        f"{size}, but window {window} needs at least {minimum:,}: add text, or choose a shorter one", "window"
    )


def describe_corpus(corpus: Corpus, encoded: EncodedCorpus) -> CorpusRecord:
    """The entry of `run.json` for a corpus."""
    return CorpusRecord(
        files=tuple(name if name == STANDARD_INPUT else str(Path(name).absolute()) for name in corpus.names),
        characters=encoded.characters,
        tokens=encoded.tokens,
        training_tokens=encoded.training_tokens,
        sha256=encoded.digest,
        has_documents=corpus.has_documents,
        options=corpus.options,
        tokens_sha256=encoded.tokens_digest,
    )


def flush_tokens(path: Path) -> None:
    """Flushes the token files at `path` to the disk; raises CannotCreateError or StorageError."""
    with translate_write_errors(path):
        for file in token_paths(path):
            sync(file)


def ensure_tokens(run: Path, record: RunRecord, run_context: RunContext) -> Tokenizer:
    """Encodes the text of a run to resume again if its token files are missing or damaged; returns the tokenizer.

    Raises:
        DataError: the text or the tokenizer has changed since the run started.
        NoInputError: the text is missing.
        QuickfoxError: any other subclass: reading or writing failed.
    """
    tokenizer = load_tokenizer(run / TOKENIZER_FILE)
    if tokenizer_digest(tokenizer) != record.vocabulary_sha256:
        raise DataError(f"{run}: {TOKENIZER_FILE} has changed since the run started: restore it, or start a new run")
    if not _has_tokens(run, record):
        _encode_again(run, record, tokenizer, run / TOKENS_FILE, run_context)
    return tokenizer


@contextmanager
def recorded_tokens(run: Path, record: RunRecord, run_context: RunContext) -> Iterator[tuple[Tokens, Tokens]]:
    """The training and the validation tokens of a run, which is not changed: see `ensure_tokens`.

    If its token files are missing or damaged, others are in a temporary directory until the end of the context.
    """
    tokenizer = load_tokenizer(run / TOKENIZER_FILE)
    with ExitStack() as stack:
        folder = run
        if not _has_tokens(run, record):
            with translate_write_errors(None, "write tokens to"):
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            _encode_again(run, record, tokenizer, folder / TOKENS_FILE, run_context)
        yield open_split(folder, tokenizer, record.corpus, record.training_tokens)


def _has_tokens(run: Path, record: RunRecord) -> bool:
    """Whether the token files of a run are there, undamaged."""
    found = tokens_digest(run / TOKENS_FILE, has_loss_mask=record.corpus.has_documents)
    return found is not None and found == record.corpus.tokens_sha256


def _encode_again(run: Path, record: RunRecord, tokenizer: Tokenizer, path: Path, run_context: RunContext) -> None:
    """Writes the token files of a run to `path`; raises as `ensure_tokens`."""
    if STANDARD_INPUT in record.corpus.files:
        found = run / TOKENS_FILE
        if not found.exists():
            raise NoInputError(f"{found} is missing, and the text came from standard input: start a new run")
        raise DataError(f"{found} is damaged, and the text came from standard input: start a new run")
    corpus = open_corpus(record.corpus.files, run_context.notify, options=record.corpus.reading, is_recorded=True)
    corpus = corpus.with_progress(run_context.start_progress("encoding", corpus.size))
    if encode_corpus(corpus, tokenizer, path, record.training_characters).digest != record.corpus.sha256:
        remove_tokens(path)
        raise DataError(
            f"the text has changed since {run} started ({record.corpus.files[0]}): restore it, or start a new run"
        )


def open_split(run: Path, tokenizer: Tokenizer, corpus: CorpusRecord, training_tokens: int) -> tuple[Tokens, Tokens]:
    """The first `training_tokens` tokens of a run, in its token files, and those after them for validation.

    Of a very long held-out text, its first MAX_VALIDATION_TOKENS are used.

    Raises:
        NoInputError, DataError, StorageError: the files are missing, damaged or cannot be opened.
    """
    tokens = open_corpus_tokens(run / TOKENS_FILE, tokenizer.token_dtype, has_loss_mask=corpus.has_documents)
    training, held_out = tokens.split(training_tokens)
    return training, held_out.split(min(len(held_out), MAX_VALIDATION_TOKENS))[0]


def tokenizer_digest(tokenizer: Tokenizer) -> str:
    """The sha256 of the tokenizer's file, in hexadecimal."""
    return hashlib.sha256(format_tokenizer(tokenizer)).hexdigest()
