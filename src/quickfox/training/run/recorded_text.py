"""The text of a run that is resumed or reported: its token files, and whether its text has changed since it started."""

import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from quickfox.checkpoints.run_directory import TOKENIZER_FILE, TOKENS_FILE
from quickfox.data.corpus_writer import encode_corpus
from quickfox.data.dataset import Tokens, remove_tokens, tokens_digest
from quickfox.errors import DataError, NoInputError
from quickfox.files.atomic import temporary_directory
from quickfox.files.errors import translate_read_errors
from quickfox.text.corpus import open_corpus
from quickfox.text.sources import STANDARD_INPUT
from quickfox.tokenizers.base import Tokenizer
from quickfox.tokenizers.serialization import load_tokenizer, tokenizer_digest
from quickfox.training.engine.events import RunContext
from quickfox.training.run.dataset import open_run_split
from quickfox.training.run.record import RunRecord

_TIME_RESOLUTION = 2.0  # seconds: the coarsest modification times, those of FAT


def stamp_files(files: Sequence[str], seconds: float) -> str | None:
    """A digest of the sizes and modification times of files, which differs when one of them was changed.

    Args:
        files: paths of files, or of members of archives, of which the archive counts.
        seconds: time since the files were first read. One that was modified later, or shortly before, could change
            again without another modification time, since these have a resolution.

    Returns:
        Hexadecimal sha256; None if a file was modified then, or is missing or standard input.
    """
    latest = time.time() - seconds - _TIME_RESOLUTION
    stamps = []
    for file in files:
        with translate_read_errors(file):
            path = _stored_file(file)
            if path is None:
                return None
            status = path.stat()
        if status.st_mtime > latest:
            return None
        stamps.append([status.st_size, status.st_mtime_ns])
    return hashlib.sha256(json.dumps(stamps).encode()).hexdigest()


def _stored_file(name: str) -> Path | None:
    """The file that a source is read from; None: there is none."""
    path = Path(name)
    return None if name == STANDARD_INPUT else next((each for each in (path, *path.parents) if each.is_file()), None)


def ensure_tokens(run: Path, record: RunRecord, run_context: RunContext) -> Tokenizer:
    """Checks the text and the token files of a run to resume, writes the latter again if needed; returns the tokenizer.

    A text that was removed is not needed while its tokens are there.

    Raises:
        DataError: the text or the tokenizer has changed since the run started.
        NoInputError: the text is missing, and its tokens are missing or damaged.
        QuickfoxError: any other subclass: reading or writing failed.
    """
    tokenizer = load_tokenizer(run / TOKENIZER_FILE)
    if tokenizer_digest(tokenizer) != record.vocabulary_sha256:
        raise DataError(f"{run}: {TOKENIZER_FILE} has changed since the run started: restore it, or start a new run")
    if _has_tokens(run, record):
        _check_text(run, record, tokenizer, run_context)
    else:
        _encode_again(run, record, tokenizer, run / TOKENS_FILE, run_context)
    return tokenizer


def _check_text(run: Path, record: RunRecord, tokenizer: Tokenizer, run_context: RunContext) -> None:
    """Compares the text of a run with its tokens, unless its files look as they did; raises DataError if it differs."""
    files = [*record.corpus.files, *record.corpus.validation_files]
    if STANDARD_INPUT in files:
        return
    missing = [file for file in files if _stored_file(file) is None]
    if missing:
        more = f" and {len(missing) - 1:,} more" if len(missing) > 1 else ""
        run_context.notify(f"{missing[0]}{more} is not there any more: the run goes on from its tokens")
    elif record.corpus.files_stamp is None or stamp_files(files, 0.0) != record.corpus.files_stamp:
        with temporary_directory() as folder:
            try:
                _encode_again(run, record, tokenizer, folder / TOKENS_FILE, run_context)
            except NoInputError as error:
                if record.model.media is None:
                    raise DataError(f"the text has changed since the run started: {error}") from None
                # A sound or a picture is missing.
                run_context.notify(f"{error}: the run goes on from its tokens")


@contextmanager
def recorded_tokens(run: Path, record: RunRecord, run_context: RunContext) -> Iterator[tuple[Tokens, Tokens]]:
    """The training and the validation tokens of a run, which is not changed: see `ensure_tokens`.

    If its token files are missing or damaged, others are in a temporary directory until the end of the context.
    """
    tokenizer = load_tokenizer(run / TOKENIZER_FILE)
    if _has_tokens(run, record):
        yield open_run_split(run, tokenizer, record)
        return
    with temporary_directory() as folder:
        _encode_again(run, record, tokenizer, folder / TOKENS_FILE, run_context)
        yield open_run_split(folder, tokenizer, record)


def _has_tokens(run: Path, record: RunRecord) -> bool:
    """Whether the token files of a run are there, undamaged."""
    has_frames = record.model.media is not None
    found = tokens_digest(run / TOKENS_FILE, has_loss_mask=record.corpus.has_documents, has_frames=has_frames)
    return found is not None and found == record.corpus.tokens_sha256


def _encode_again(run: Path, record: RunRecord, tokenizer: Tokenizer, path: Path, run_context: RunContext) -> None:
    """Writes the token files of a run to `path`; raises as `ensure_tokens`."""
    if STANDARD_INPUT in (*record.corpus.files, *record.corpus.validation_files):
        found = run / TOKENS_FILE
        if not found.exists():
            raise NoInputError(f"{found} is missing, and the text came from standard input: start a new run")
        raise DataError(f"{found} is damaged, and the text came from standard input: start a new run")
    corpus, validation = (
        open_corpus(files, run_context.notify, options=record.corpus.reading, is_recorded=True) if files else None
        for files in (record.corpus.files, record.corpus.validation_files)
    )
    assert corpus is not None, "a run has a corpus"
    corpus = corpus.with_progress(run_context.start_progress("encoding", corpus.size))
    encoded = encode_corpus(corpus, tokenizer, path, record.split, validation, media=record.model.media)
    digests = encoded.digest, encoded.tokens_digest
    if digests != (record.corpus.sha256, record.corpus.tokens_sha256 or encoded.tokens_digest):
        remove_tokens(path)
        raise DataError(
            f"the text has changed since {run} started ({record.corpus.files[0]}): restore it, or start a new run"
        )
