"""Run directories and their checkpoints: create runs, list and prune checkpoints, find a model.

    runs/NAME/run.json  history.jsonl  checkpoints/step-00001200/

The directories are scanned each time; there is no index that could disagree with them. Of a checkpoint only the
manifest is read.
"""

import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatch
from itertools import count
from pathlib import Path

from quickfox.checkpoints.checkpoint import ModelBundle, TrainingState, save_checkpoint, verify_model
from quickfox.checkpoints.manifest import MANIFEST_NAME, Manifest, read_manifest
from quickfox.errors import CannotCreateError, DataError, NoInputError, QuickfoxError
from quickfox.files.atomic import make_directory, remove_directory, rename_directory, sync
from quickfox.files.errors import translate_read_errors, translate_write_errors

RUNS_DIRECTORY = "runs"
RUN_FILE = "run.json"
TOKENIZER_FILE = "tokenizer.json"
LOCK_FILE = "lock"
TOKENS_FILE = "tokens.bin"
CHECKPOINTS_DIRECTORY = "checkpoints"
MODEL_VARIABLE = "QUICKFOX_MODEL"
FORMER_MODEL_VARIABLE = "LLM_MODEL"
"""Of versions up to 0.1.0; the program `llm` by another author keeps the name of a model in it."""

_LONGEST_NAME = 64
_RECENT_CHECKPOINTS_KEPT = 2
_REPLACEMENT = "-new"
"""Ends the name of a checkpoint that replaces another, until that is removed."""

_LEFTOVERS = (LOCK_FILE, "tokens.*", TOKENIZER_FILE, ".quickfox-*.tmp")
"""Files that a new run has before its record, the lock first; encoding a long text takes some time."""


@dataclass(frozen=True)
class Checkpoint:
    """A committed checkpoint: its directory, its manifest, and when that was written, in ns since 1970."""

    directory: Path
    manifest: Manifest
    saved_ns: int


def new_run_directory(name: str, parent: Path = Path(RUNS_DIRECTORY)) -> Path:
    """Creates a directory for a new run under `parent`: NAME, or NAME-2, NAME-3 ... if that exists.

    Args:
        name: any text, such as the stem of a corpus; characters unsuitable for a file name are replaced.

    Raises:
        CannotCreateError, StorageError: it cannot be created.
    """
    stem = re.sub(r"[^\w.-]+", "-", name).strip("-.")[:_LONGEST_NAME] or "run"
    make_directory(parent)
    with translate_write_errors(parent):
        for number in count(1):
            directory = parent / (stem if number == 1 else f"{stem}-{number}")
            with suppress(FileExistsError):
                directory.mkdir()
                try:
                    sync(parent)
                except BaseException:  # the process is being ended
                    directory.rmdir()
                    raise
                return directory
    raise AssertionError("unreachable")


def make_run_directory(directory: Path) -> None:
    """Creates the directory that the user named for a new run, unless it exists and is empty.

    A directory in which a run was killed before it wrote its record counts as empty: see `_LEFTOVERS`.

    Raises:
        CannotCreateError: it is not empty, or cannot be created.
        StorageError: the storage failed.
    """
    make_directory(directory)
    with translate_write_errors(directory):
        names = {path.name for path in directory.iterdir()}
        foreign = [name for name in names if not any(fnmatch(name, pattern) for pattern in _LEFTOVERS)]
        if RUN_FILE in names:
            raise CannotCreateError(
                f"{directory} is a run: resume it with `llm train --resume {directory}`, or name another directory"
            )
        if foreign or (names and LOCK_FILE not in names):
            raise CannotCreateError(f"{directory} is not empty: name another directory, or remove it first")


def checkpoint_directory(run: Path, step: int) -> Path:
    """The directory of the checkpoint after `step` optimizer steps."""
    return run / CHECKPOINTS_DIRECTORY / f"step-{step:08d}"


def list_checkpoint_directories(run: Path) -> list[Path]:
    """The checkpoint directories of `run`, earliest first, damaged ones included.

    Raises:
        StorageError: reading failed.
    """
    parent = run / CHECKPOINTS_DIRECTORY
    try:
        with translate_read_errors(parent):  # since Python 3.12, `glob` would hide errors
            paths = [path for path in parent.iterdir() if path.name.startswith("step-") and path.is_dir()]
    except NoInputError:
        return []
    return sorted(paths, key=lambda path: (len(path.name), path.name))  # names get longer beyond 8 digits


def list_checkpoints(run: Path, damaged: list[DataError] | None = None) -> list[Checkpoint]:
    """The checkpoints of `run` with a valid manifest, earliest first; their other files are not read.

    The errors of the others are appended to `damaged`, if given.

    Raises:
        StorageError: reading failed.
    """
    found = []
    for directory in list_checkpoint_directories(run):
        try:
            manifest = read_manifest(directory)
            with translate_read_errors(directory):
                found.append(Checkpoint(directory, manifest, (directory / MANIFEST_NAME).stat().st_mtime_ns))
        except NoInputError:
            continue  # pruned meanwhile by a run in progress
        except DataError as error:
            if damaged is not None:
                damaged.append(error)
    return sorted(found, key=lambda checkpoint: checkpoint.manifest.step)


def sort_by_loss(checkpoints: list[Checkpoint]) -> list[Checkpoint]:
    """Sorts checkpoints by validation loss, lowest first; those without a loss are last, latest first."""

    def key(checkpoint: Checkpoint) -> tuple[bool, float, int]:
        loss, step = checkpoint.manifest.validation_loss, checkpoint.manifest.step
        return (True, 0.0, -step) if loss is None else (False, loss, step)

    return sorted(checkpoints, key=key)


def find_best_model(run: Path) -> tuple[Path, str | None]:
    """Finds the best undamaged checkpoint of `run`.

    Returns:
        The model directory, verified; and a warning if a damaged one was skipped.

    Raises:
        NoInputError: there is no checkpoint.
        DataError: all checkpoints are damaged.
        StorageError: reading failed.
    """
    damaged: list[DataError] = []
    for checkpoint in sort_by_loss(list_checkpoints(run, damaged)):
        try:
            verify_model(checkpoint.directory)
        except NoInputError:
            continue  # pruned meanwhile
        except DataError as error:
            damaged.append(error)
            continue
        warning = f"{damaged[0]}; using {checkpoint.directory} instead" if damaged else None
        return checkpoint.directory, warning
    if damaged:
        raise DataError(f"{run}: every checkpoint is damaged: {damaged[0]}")
    raise NoInputError(f"{run}: no checkpoint was saved in this run; train it again with `llm train`")


def list_runs(parent: Path, unreadable: list[QuickfoxError] | None = None) -> list[Path]:
    """The runs in `parent` with a committed checkpoint, ordered by their newest one, newest first.

    The errors of those that cannot be read are appended to `unreadable`, if given.
    """
    runs = {}
    for run in parent.glob("*"):
        try:
            runs[run] = list_checkpoints(run)
        except QuickfoxError as error:
            if unreadable is not None:
                unreadable.append(error)
    newest = {run: max(each.saved_ns for each in checkpoints) for run, checkpoints in runs.items() if checkpoints}
    return sorted(newest, key=lambda run: (newest[run], run), reverse=True)


def find_model(path: str | None, environ: Mapping[str, str], cwd: Path) -> tuple[Path, str | None, str | None]:
    """Resolves `--model` to a model directory.

    Args:
        path: a run, a checkpoint or a bare model directory; None: the path in the variable QUICKFOX_MODEL of `environ`
            if set, else the run with the newest checkpoint under `cwd`/runs.
        environ: the environment variables.
        cwd: the directory that relative paths start from.

    Returns:
        The model directory; lines for the user that name a default model or a variable that is not read; and a warning
        if a damaged checkpoint or a run that cannot be read was skipped.

    Raises:
        NoInputError: there is no such path, or no run.
        DataError: the path is not a model, or is damaged. Only a run falls back on another checkpoint, and only the
            default on another run.
        StorageError: reading failed.
    """
    if path is not None:
        model, warning = _model_at(cwd / path)
        return model, None, warning
    if variable := environ.get(MODEL_VARIABLE):
        model, warning = _model_at(cwd / variable)
        return model, f"model: {model} (from ${MODEL_VARIABLE})", warning
    hint = _former_variable_hint(environ.get(FORMER_MODEL_VARIABLE), cwd)
    skipped: list[QuickfoxError] = []
    for run in list_runs(cwd / RUNS_DIRECTORY, skipped):
        try:
            model, warning = find_best_model(run)
        except QuickfoxError as error:
            skipped.append(error)
            continue
        warnings = [*(f"{error}; this run is skipped" for error in skipped), *([warning] if warning else [])]
        note = "\n".join(filter(None, [hint, f"model: {model} (the newest run)"]))
        return model, note, "; ".join(warnings) or None
    if skipped:
        raise skipped[0]
    advice = hint or "train one with `llm train corpus.txt`"
    raise NoInputError(f"no model in ./{RUNS_DIRECTORY}: {advice}, or name one with --model")


def save_run_checkpoint(run: Path, bundle: ModelBundle, training: TrainingState) -> None:
    """Saves the checkpoint of a run after `bundle.step` steps, in place of one that is there.

    At every moment one of both is there as a whole. Raises the errors of `save_checkpoint`.
    """
    directory = checkpoint_directory(run, bundle.step)
    if not directory.exists():
        save_checkpoint(directory, bundle, training)
        return
    save_checkpoint(directory.with_name(directory.name + _REPLACEMENT), bundle, training)
    finish_replacements(run)


def finish_replacements(run: Path) -> None:
    """Removes the checkpoints of `run` that were replaced, which an interrupted `save_run_checkpoint` has not done yet.

    Raises:
        CannotCreateError, StorageError: a directory cannot be removed or renamed.
    """
    for new in list_checkpoint_directories(run):
        if new.name.endswith(_REPLACEMENT):
            directory = new.with_name(new.name.removesuffix(_REPLACEMENT))
            if directory.exists():
                remove_directory(directory)
            rename_directory(new, directory)


def prune_checkpoints(run: Path) -> None:
    """Removes all checkpoints of `run` except the best by validation loss and the last two.

    Raises:
        CannotCreateError, StorageError: a checkpoint cannot be removed.
    """
    checkpoints = list_checkpoints(run)
    kept = [*sort_by_loss(checkpoints)[:1], *checkpoints[-_RECENT_CHECKPOINTS_KEPT:]]
    for checkpoint in checkpoints:
        if checkpoint not in kept:
            remove_directory(checkpoint.directory)


def _former_variable_hint(value: str | None, cwd: Path) -> str | None:
    """A line for users whose FORMER_MODEL_VARIABLE is the path of a run or model; None for any other value."""
    names = (RUN_FILE, CHECKPOINTS_DIRECTORY, MANIFEST_NAME)
    # os.path.exists is false, not an error, where a file name is too long
    if not value or not any(os.path.exists(cwd / value / name) for name in names):  # noqa: PTH110
        return None
    return f"${FORMER_MODEL_VARIABLE} is not read: set ${MODEL_VARIABLE} to {value} instead"


def _model_at(path: Path) -> tuple[Path, str | None]:
    with translate_read_errors(path):
        is_run = (path / RUN_FILE).is_file() or (path / CHECKPOINTS_DIRECTORY).is_dir()
    if is_run:
        return find_best_model(path)
    read_manifest(path)
    return path, None
