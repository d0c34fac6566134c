"""Runs and the checkpoints in them: where a new one goes, which are good, which one a person means, which may go.

    runs/NAME/run.json  history.jsonl  checkpoints/step-00001200/

Nothing but the folders themselves says what is there: no index that could disagree with them. What is in a
checkpoint is checkpoint.py's business.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from itertools import count
from pathlib import Path

from quickfox.checkpoints.checkpoint import verify_model
from quickfox.checkpoints.manifest import MANIFEST_NAME, Manifest, read_manifest
from quickfox.errors import CannotCreateError, DataError, NoInputError
from quickfox.files.atomic import remove_directory
from quickfox.files.errors import translate_read_errors, translate_write_errors

RUNS_FOLDER = "runs"
RUN_FILE = "run.json"
LOCK_FILE = "lock"
TOKENS_FILE = "tokens.bin"
CHECKPOINTS_FOLDER = "checkpoints"
MODEL_VARIABLE = "QUICKFOX_MODEL"
FORMER_MODEL_VARIABLE = "LLM_MODEL"
"""Of versions up to 0.1.0; the program `llm` by another author keeps the name of a model in it."""

_LONGEST_NAME = 64
_RECENT_CHECKPOINTS_KEPT = 2

_LEFTOVERS = (LOCK_FILE, "tokens.*", ".quickfox-*.tmp")
"""What a new run has in its folder before its record, for some time if its text is long; first of all the lock."""


@dataclass(frozen=True)
class Checkpoint:
    """A committed checkpoint: its folder and what its manifest says."""

    directory: Path
    manifest: Manifest


def new_run_directory(name: str, parent: Path = Path(RUNS_FOLDER)) -> Path:
    """Make an empty folder for a new run under `parent`: NAME, or NAME-2, NAME-3 ... if that is taken.

    Args:
        name: any text, such as a corpus's stem; what does not suit a file name is replaced.

    Raises:
        CannotCreateError, StorageError: it cannot be made.
    """
    stem = re.sub(r"[^\w.-]+", "-", name).strip("-.")[:_LONGEST_NAME] or "run"
    with translate_write_errors(parent):
        parent.mkdir(parents=True, exist_ok=True)
        for number in count(1):
            directory = parent / (stem if number == 1 else f"{stem}-{number}")
            try:
                directory.mkdir()
            except FileExistsError:
                continue
            return directory
    raise AssertionError("unreachable")


def make_run_directory(directory: Path) -> None:
    """Make the folder that a person named for a new run; an empty one may be there already.

    As good as empty is one in which a run was killed before it had written its record: see `_LEFTOVERS`.

    Raises:
        CannotCreateError: it holds something, or cannot be made.
        StorageError: the storage failed.
    """
    with translate_write_errors(directory):
        directory.mkdir(parents=True, exist_ok=True)
        names = {path.name for path in directory.iterdir()}
        foreign = [name for name in names if not any(fnmatch(name, pattern) for pattern in _LEFTOVERS)]
        if RUN_FILE in names:
            raise CannotCreateError(
                f"{directory} is not empty but a run: go on with it by `llm train --resume {directory}`, or name "
                f"another folder"
            )
        if foreign or (names and LOCK_FILE not in names):
            raise CannotCreateError(f"{directory} is not empty: name another folder, or remove it first")


def checkpoint_directory(run: Path, step: int) -> Path:
    """Where the checkpoint of `run` after `step` optimizer steps belongs."""
    return run / CHECKPOINTS_FOLDER / f"step-{step:08d}"


def step_directories(run: Path) -> list[Path]:
    """The folders of the checkpoints of `run`, earliest first, whatever state they are in.

    Raises:
        StorageError: reading failed.
    """
    folder = run / CHECKPOINTS_FOLDER
    with translate_read_errors(folder):
        paths = [path for path in folder.glob("step-*") if path.is_dir()]
    return sorted(paths, key=lambda path: (len(path.name), path.name))  # past 8 digits the names grow longer


def checkpoints_of(run: Path, damaged: list[DataError] | None = None) -> list[Checkpoint]:
    """The checkpoints of `run` that have a valid manifest, earliest first; their other files are not looked at.

    Args:
        run: a run's folder.
        damaged: if given, gets the reason for each checkpoint that is left out.

    Raises:
        StorageError: reading failed.
    """
    found = []
    for directory in step_directories(run):
        try:
            found.append(Checkpoint(directory, read_manifest(directory)))
        except NoInputError:
            continue  # its run, still training, has just pruned it
        except DataError as error:
            if damaged is not None:
                damaged.append(error)
    return sorted(found, key=lambda checkpoint: checkpoint.manifest.step)


def best_first(checkpoints: list[Checkpoint]) -> list[Checkpoint]:
    """The checkpoints by validation loss, lowest first; those without one after them, latest first."""

    def rank(checkpoint: Checkpoint) -> tuple[bool, float, int]:
        loss, step = checkpoint.manifest.validation_loss, checkpoint.manifest.step
        return (True, 0.0, -step) if loss is None else (False, loss, step)

    return sorted(checkpoints, key=rank)


def best_model(run: Path) -> tuple[Path, str | None]:
    """The model that `run` stands for: its best undamaged checkpoint.

    Returns:
        The model directory, its files verified; and a warning if a damaged one was passed over.

    Raises:
        NoInputError: there is no checkpoint.
        DataError: all checkpoints are damaged.
        StorageError: reading failed.
    """
    damaged: list[DataError] = []
    for checkpoint in best_first(checkpoints_of(run, damaged)):
        try:
            verify_model(checkpoint.directory)
        except NoInputError:
            continue  # just pruned
        except DataError as error:
            damaged.append(error)
            continue
        warning = f"warning: {damaged[0]}; using {checkpoint.directory} instead" if damaged else None
        return checkpoint.directory, warning
    if damaged:
        raise DataError(f"{run}: no checkpoint is undamaged: {damaged[0]}")
    raise NoInputError(f"{run}: no checkpoint was saved in this run; train it again with `llm train`")


def runs_in(folder: Path) -> list[Path]:
    """The runs in `folder` that have a committed checkpoint, the one with the newest first."""
    newest: dict[Path, int] = {}
    for run in folder.glob("*"):
        times = [(checkpoint.directory / MANIFEST_NAME).stat().st_mtime_ns for checkpoint in checkpoints_of(run)]
        if times:
            newest[run] = max(times)
    return sorted(newest, key=lambda run: (newest[run], run), reverse=True)


def find_model(path: str | None, environ: Mapping[str, str], cwd: Path) -> tuple[Path, str | None]:
    """Resolves `--model` to a model directory.

    Args:
        path: a run, a checkpoint or a bare model directory; None: the path in the variable QUICKFOX_MODEL of `environ`
            if set, else the run with the newest checkpoint under `cwd`/runs.
        environ: the environment variables.
        cwd: the folder that relative paths start from.

    Returns:
        The model directory; and lines for the user that name a default model, a damaged checkpoint that was skipped,
        or a variable that is not read.

    Raises:
        NoInputError: there is no such path, or no run.
        DataError: the path is not a model, or is damaged. Only a run falls back on another checkpoint.
        StorageError: reading failed.
    """
    if path is not None:
        return _model_at(cwd / path)
    if variable := environ.get(MODEL_VARIABLE):
        model, warning = _model_at(cwd / variable)
        return model, "\n".join(filter(None, [f"model: {model} (from ${MODEL_VARIABLE})", warning]))
    hint = _former_variable_hint(environ.get(FORMER_MODEL_VARIABLE), cwd)
    runs = runs_in(cwd / RUNS_FOLDER)
    if not runs:
        advice = hint or "train one with `llm train corpus.txt`"
        raise NoInputError(f"no model in ./{RUNS_FOLDER}: {advice}, or name one with --model")
    model, warning = best_model(runs[0])
    return model, "\n".join(filter(None, [hint, f"model: {model} (the newest run)", warning]))


def prune_checkpoints(run: Path) -> None:
    """Remove all checkpoints of `run` but the best by validation loss and the last two.

    Raises:
        CannotCreateError, StorageError: one cannot be removed.
    """
    checkpoints = checkpoints_of(run)
    kept = [*best_first(checkpoints)[:1], *checkpoints[-_RECENT_CHECKPOINTS_KEPT:]]
    for checkpoint in checkpoints:
        if checkpoint not in kept:
            remove_directory(checkpoint.directory)


def _former_variable_hint(value: str | None, cwd: Path) -> str | None:
    """A line for users whose FORMER_MODEL_VARIABLE is the path of a run or model; None for any other value."""
    names = (RUN_FILE, CHECKPOINTS_FOLDER, MANIFEST_NAME)
    # os.path.exists is false, not an error, where a file name is too long
    if not value or not any(os.path.exists(cwd / value / name) for name in names):  # noqa: PTH110
        return None
    return f"${FORMER_MODEL_VARIABLE} is not read: set ${MODEL_VARIABLE} to {value} instead"


def _model_at(path: Path) -> tuple[Path, str | None]:
    with translate_read_errors(path):
        is_run = (path / RUN_FILE).is_file() or (path / CHECKPOINTS_FOLDER).is_dir()
    if is_run:
        return best_model(path)
    read_manifest(path)
    return path, None
