"""What a resumed run continues from: the run, its checkpoint, and the settings that may change."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quickfox.checkpoints.checkpoint import ModelBundle, load_model, load_training_state, verify_checkpoint
from quickfox.checkpoints.run_directory import (
    CHECKPOINTS_DIRECTORY,
    RUN_FILE,
    RUNS_DIRECTORY,
    checkpoint_directory,
    list_checkpoint_directories,
)
from quickfox.config.schema import from_dict
from quickfox.config.training import TrainingRequest
from quickfox.errors import DataError, NewerFormatError, NoInputError, QuickfoxError, UsageError
from quickfox.files.atomic import remove_directory, remove_temporaries
from quickfox.files.errors import translate_read_errors
from quickfox.training.engine.progress import Progress
from quickfox.training.run.record import RunRecord, read_record

_LENGTH_SETTINGS = ("steps", "epochs", "budget")
"""The settings that may change when a run is resumed."""

_UNTIMED_STEPS = 100  # first estimate before the speed is known; enough to measure it


@dataclass(frozen=True)
class ResumePoint:
    """A verified checkpoint in memory: the model, the optimizer slots and carried state, and the progress."""

    bundle: ModelBundle
    tensors: Mapping[str, Any]
    progress: Progress


def find_run(run: Path | None, notify: Callable[[str], None]) -> Path:
    """Returns the directory of the run to resume: `run`, or if None the run under `runs` that was written last.

    Raises:
        NoInputError: there is no such run, or none under `runs` can be read; those that cannot are skipped.
    """
    if run is not None:
        with translate_read_errors(run):
            is_run = (run / RUN_FILE).exists()
        if not is_run:
            raise NoInputError(f"{run}: no {RUN_FILE} there, so no run to resume: start one with `llm train CORPUS`")
        return run
    written = {path.parent: _last_written(path.parent) for path in Path(RUNS_DIRECTORY).glob(f"*/{RUN_FILE}")}
    for newest in sorted(written, key=lambda run: written[run], reverse=True):
        try:
            read_record(newest)
        except QuickfoxError as error:
            notify(f"warning: {error}; this run is skipped")
            continue
        notify(f"run: {newest} (the newest)")
        return newest
    raise NoInputError(f"no run under ./{RUNS_DIRECTORY} to resume; start one with `llm train CORPUS`")


def _last_written(run: Path) -> int:
    """When the record or a checkpoint of a run was written, in ns since 1970; 0: it was removed meanwhile."""
    times = [0]
    for path in (run / RUN_FILE, run / CHECKPOINTS_DIRECTORY):
        with suppress(OSError):
            times.append(path.stat().st_mtime_ns)
    return max(times)


def check_unchanged(request: TrainingRequest, record: RunRecord) -> None:
    """Checks that all settings of a request, other than the length, are those of the run.

    Raises:
        UsageError: one is not; the message has both values.
    """
    recorded = {
        **dataclasses.asdict(record.model),
        **dataclasses.asdict(record.training),
        "validation_split": record.validation_split,
        "tokenizer": record.tokenizer,
        "ngram": record.training.ngram_order or "off",
    }
    for name, value in dataclasses.asdict(request).items():
        if value is None or value == "auto" or name in _LENGTH_SETTINGS:
            continue
        if name not in recorded:
            raise UsageError(f"{name} cannot be given with resume: a resumed run keeps its own", name, "resume")
        if value != recorded[name]:
            raise UsageError(
                f"{name} is {recorded[name]} in this run, not {value}: leave it out to resume, or start a new run", name
            )


def load_resume_point(run: Path, record: RunRecord, notify: Callable[[str], None]) -> ResumePoint | None:
    """Loads the newest undamaged checkpoint of `run`; None if no checkpoint was ever committed.

    Raises:
        NewerFormatError: the newest was written by another version of the program. An earlier one is not used
            instead, because resuming removes what follows the checkpoint that it continues from.
        DataError: all checkpoints are damaged.
        StorageError: reading failed.
    """
    damaged: list[DataError] = []
    for directory in reversed(list_checkpoint_directories(run)):
        try:
            point = _load_checkpoint(directory, record)
        except NewerFormatError:
            raise
        except DataError as error:
            if _is_intact(directory):
                raise NewerFormatError(
                    f"{error}; its files are undamaged, so another version of quickfox wrote them: resume with that one"
                ) from None
            damaged.append(error)
            continue
        if damaged:
            notify(f"warning: {damaged[0]}; resuming from {directory} instead")
        return point
    if damaged:
        raise DataError(f"{run}: no checkpoint is undamaged: {damaged[0]}")
    notify(f"{run}: no checkpoint was committed yet; starting at step 0")
    return None


def _is_intact(checkpoint: Path) -> bool:
    """Whether all files of a checkpoint have the size and sha256 of its manifest."""
    try:
        verify_checkpoint(checkpoint)
    except (DataError, NoInputError):
        return False
    return True


def _load_checkpoint(directory: Path, record: RunRecord) -> ResumePoint:
    bundle, training = load_model(directory), load_training_state(directory)
    progress = from_dict(Progress, training.state, str(directory / "state.json"))
    planned_steps = dict(record.training.replans).get(progress.step, progress.total_steps)
    if planned_steps != progress.total_steps:  # the run was extended here, and interrupted before its next checkpoint
        progress = dataclasses.replace(progress, total_steps=planned_steps, validations_without_improvement=0)
    if dataclasses.replace(bundle.config, ngrams=(), exponents=record.model.exponents) != record.model:
        raise DataError(f"{directory}: its model is not that of {RUN_FILE}")
    if checkpoint_directory(Path(), progress.step).name != directory.name or progress.step != bundle.step:
        raise DataError(f"{directory}: its state is that of step {progress.step}")
    return ResumePoint(bundle, training.tensors, progress)


def extend_run(
    record: RunRecord, progress: Progress, request: TrainingRequest, notify: Callable[[str], None]
) -> tuple[RunRecord, Progress]:
    """Changes the length of a run if one is requested; the learning-rate decay is planned again from the present step.

    Raises:
        UsageError: the run already has that length, or is that of an n-gram model alone.
    """
    requested = [name for name in _LENGTH_SETTINGS if getattr(request, name) is not None]
    if not requested:
        return record, progress
    if not record.model.has_network:
        raise UsageError(
            f"{requested[0]} cannot extend a run of architecture ngram, which reads the text once: leave it out",
            requested[0],
        )
    total = _requested_steps(record, progress, request)
    if request.budget is None and record.budget_seconds is None and total == progress.total_steps:
        return record, progress
    if total <= progress.step:
        raise UsageError(
            f"{requested[0]} {getattr(request, requested[0]):g} is no more than this run has had: {progress.step:,} "
            f"steps, {progress.seconds:.0f} s",
            requested[0],
        )
    notify(f"the run now has {total:,} steps instead of {progress.total_steps:,}; the learning-rate decay is replanned")
    training = record.training
    if progress.step == 0:
        training = dataclasses.replace(training, steps=total, replans=())
    else:
        earlier = tuple(replan for replan in training.replans if replan[0] < progress.step)
        training = dataclasses.replace(training, replans=(*earlier, (progress.step, total)))
    progress = dataclasses.replace(progress, total_steps=total, validations_without_improvement=0)
    return dataclasses.replace(record, training=training, budget_seconds=request.budget), progress


def _requested_steps(record: RunRecord, progress: Progress, request: TrainingRequest) -> int:
    """The total number of steps of a requested length; that of a budget is an estimate."""
    training = record.training
    if request.steps is not None:
        return request.steps
    if request.epochs is not None:
        return round(request.epochs * record.training_tokens / training.tokens_per_step)
    assert request.budget is not None
    seconds_left = request.budget - progress.seconds
    if progress.timed_steps_per_second:
        return progress.step + math.floor(seconds_left * progress.timed_steps_per_second)
    return max(training.steps, progress.step + _UNTIMED_STEPS) if seconds_left > 0 else progress.step


def discard_checkpoints_after(run: Path, step: int) -> None:
    """Removes the checkpoints after `step`, which are damaged, and the temporary files of interrupted writes.

    Raises:
        CannotCreateError, StorageError: a file cannot be removed.
    """
    remove_temporaries(run)
    remove_temporaries(run / CHECKPOINTS_DIRECTORY)
    newest = checkpoint_directory(run, step)
    directories = list_checkpoint_directories(run)
    first = directories.index(newest) + 1 if newest in directories else 0
    for directory in directories[first:]:
        remove_directory(directory)
