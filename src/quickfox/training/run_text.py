"""The text of a run: the tokenizer that suits it, and its tokens in a file for as long as the run trains."""

import hashlib
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from quickfox.config import TrainingRequest
from quickfox.durable import output_errors, sync
from quickfox.errors import DataError, NoInputError, UsageError
from quickfox.text.corpus import STANDARD_INPUT, Corpus, open_corpus
from quickfox.text.documents import has_documents, iter_texts
from quickfox.text.token_store import EncodedCorpus, encode_corpus, loss_mask_path
from quickfox.text.tokenizers.building import build_tokenizer
from quickfox.text.tokenizers.character import CharacterTokenizer
from quickfox.text.tokenizers.file import format_tokenizer, load_tokenizer
from quickfox.text.tokenizers.protocol import Tokenizer
from quickfox.text.vocabulary import count_characters, describe_characters
from quickfox.training.run_record import CorpusRecord, RunRecord
from quickfox.training.transfer import grown

TOKENIZER_FILE = "tokenizer.json"
TOKENS_FILE = "tokens.bin"


def choose_tokenizer(
    corpus: Corpus, vocabulary_path: Path | None, request: TrainingRequest, start: Tokenizer | None = None
) -> Tokenizer:
    """The tokenizer in the file, or the one asked for, built from the corpus, or that of the model to start from.

    Raises:
        UsageError: a file, and yet another kind or size is asked for.
        QuickfoxError: any of its other children: the file or the corpus cannot be read, or is not what it should be.
    """
    if vocabulary_path is None and start is not None and request.tokenizer is None and request.vocabulary_size is None:
        return _ending(corpus, grown(start, set(count_characters(iter_texts(corpus)))))
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


def encode_new(
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
        left_out = encoded.unknown.total()
        notice(f"{left_out:,} characters of the corpus that the vocabulary leaves out as rare: {description}")
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


def describe_corpus(corpus: Corpus, encoded: EncodedCorpus, kept_tokens: Path | None) -> CorpusRecord:
    """What a run writes down of its corpus; `kept_tokens` is the file of its tokens, where that is kept, for good.

    Raises:
        StorageError: the file cannot be flushed to the disk.
    """
    if kept_tokens is not None:
        with output_errors(kept_tokens):
            for path in filter(Path.exists, (kept_tokens, loss_mask_path(kept_tokens))):
                sync(path)
    return CorpusRecord(
        files=tuple(name if name == STANDARD_INPUT else str(Path(name).absolute()) for name in corpus.names),
        characters=encoded.characters,
        tokens=encoded.tokens,
        sha256=encoded.digest,
        has_documents=has_documents(corpus),
        tokens_sha256=None if kept_tokens is None else _file_digest(kept_tokens),
    )


def encode_again(run: Path, record: RunRecord, tokens_path: Path, notice: Callable[[str], None]) -> Tokenizer:
    """Makes sure that `tokens_path` holds the tokens of a run that was begun before; returns its tokenizer.

    Raises:
        DataError: the text or the tokenizer is not the one the run was begun with.
        NoInputError: the text has gone.
        QuickfoxError: any of its other children: reading or writing failed.
    """
    tokenizer = load_tokenizer(run / TOKENIZER_FILE)
    if tokenizer_digest(tokenizer) != record.vocabulary_sha256:
        raise DataError(f"{run}: the vocabulary is not the one that this run was begun with")
    if record.corpus.tokens_sha256 is None:
        corpus = open_corpus(record.corpus.files, notice)
        if encode_corpus(corpus, tokenizer, tokens_path).digest != record.corpus.sha256:
            raise DataError(
                f"the text has changed since {run} was begun ({record.corpus.files[0]}): restore it, or start a new run"
            )
    elif not tokens_path.exists():
        raise NoInputError(f"{tokens_path} is gone, and the text came from standard input: start a new run")
    elif _file_digest(tokens_path) != record.corpus.tokens_sha256:
        raise DataError(f"{tokens_path} is damaged, and the text came from standard input: start a new run")
    return tokenizer


@contextmanager
def tokens_file(run: Path, *, keep: bool) -> Iterator[Path]:
    """The place of the encoded text; the file is removed after the block, unless the text cannot be read again."""
    path = run / TOKENS_FILE
    try:
        yield path
    finally:
        if not keep:
            path.unlink(missing_ok=True)
            loss_mask_path(path).unlink(missing_ok=True)


def tokenizer_digest(tokenizer: Tokenizer) -> str:
    """The sha256 of the tokenizer's file, in hexadecimal."""
    return hashlib.sha256(format_tokenizer(tokenizer)).hexdigest()


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
