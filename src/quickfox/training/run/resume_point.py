"""What a resumed run starts from: which run, which checkpoint, and what may differ from before."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quickfox.checkpoints.checkpoint import ModelBundle, load_model, load_training_state
from quickfox.checkpoints.run_directory import (
    CHECKPOINTS_FOLDER,
    RUN_FILE,
    RUNS_FOLDER,
    checkpoint_directory,
    step_directories,
)
from quickfox.config.schema import from_dict
from quickfox.config.training import TrainingRequest
from quickfox.data.dataset import count_training_tokens
from quickfox.errors import DataError, NoInputError, UsageError
from quickfox.files.atomic import remove_directory, remove_temporaries
from quickfox.files.errors import translate_read_errors
from quickfox.training.engine.progress import Progress
from quickfox.training.run.record import RunRecord

_LENGTHS = ("steps", "epochs", "budget")
"""The settings of a run that may change: how long it goes on."""

_UNTIMED_STEPS = 100  # to plan for when no speed is known yet; more than it takes to measure one


@dataclass(frozen=True)
class ResumePoint:
    """A checkpoint, verified and in memory: the model, the other tensors, and how far the run had come."""

    bundle: ModelBundle
    tensors: Mapping[str, Any]
    progress: Progress


def find_run(run: Path | None, notice: Callable[[str], None]) -> Path:
    """The folder of the run to resume: `run`, or the one under `runs` that was last written to.

    Raises:
        NoInputError: there is none.
    """
    if run is not None:
        with translate_read_errors(run):
            is_run = (run / RUN_FILE).exists()
        if not is_run:
            raise NoInputError(f"{run}: no {RUN_FILE} there, so no run to resume; start one with `llm train CORPUS`")
        return run
    runs = [path.parent for path in Path(RUNS_FOLDER).glob(f"*/{RUN_FILE}")]
    if not runs:
        raise NoInputError(f"no run under ./{RUNS_FOLDER} to resume; start one with `llm train CORPUS`")
    newest = max(runs, key=_last_written)
    notice(f"run: {newest} (the newest)")
    return newest


def _last_written(run: Path) -> int:
    paths = [run / RUN_FILE, run / CHECKPOINTS_FOLDER]
    return max(path.stat().st_mtime_ns for path in paths if path.exists())


def check_unchanged(request: TrainingRequest, record: RunRecord) -> None:
    """Refuses settings that are not the run's own.

    Raises:
        UsageError: names the first of them, with both values.
    """
    known = {
        **dataclasses.asdict(record.model),
        **dataclasses.asdict(record.training),
        "validation_split": record.validation_split,
        "tokenizer": record.tokenizer,
    }
    for field in dataclasses.fields(request):
        value = getattr(request, field.name)
        if value is None or value == "auto" or field.name in _LENGTHS:
            continue
        if field.name not in known:
            raise UsageError(f"--{field.name} cannot be given with --resume: a resumed run keeps its own")
        if value != known[field.name]:
            option = field.name.replace("_", "-")
            raise UsageError(
                f"--{option} is {known[field.name]} in this run, not {value}: leave it out to resume, "
                f"or start a new run"
            )


def load_resume_point(run: Path, record: RunRecord, notice: Callable[[str], None]) -> ResumePoint | None:
    """The newest checkpoint of `run` that is whole; None if none was ever committed.

    Raises:
        DataError: there are checkpoints, and all are damaged.
        StorageError: reading failed.
    """
    damaged: list[DataError] = []
    for directory in reversed(step_directories(run)):
        try:
            point = _read(directory, record)
        except DataError as error:
            damaged.append(error)
            continue
        if damaged:
            notice(f"warning: {damaged[0]}; going on from {directory} instead")
        return point
    if damaged:
        raise DataError(f"{run}: no checkpoint is undamaged: {damaged[0]}")
    notice(f"{run}: no checkpoint was committed yet; starting at step 0")
    return None


def _read(directory: Path, record: RunRecord) -> ResumePoint:
    bundle, training = load_model(directory), load_training_state(directory)
    progress = from_dict(Progress, training.state, str(directory / "state.json"))
    planned = dict(record.training.replans).get(progress.step, progress.total_steps)
    if planned != progress.total_steps:  # the run was extended from here, and stopped before its next checkpoint
        progress = dataclasses.replace(progress, total_steps=planned, validations_without_improvement=0)
    if bundle.config != record.model:
        raise DataError(f"{directory}: its model is not the one in {RUN_FILE}")
    if checkpoint_directory(Path(), progress.step).name != directory.name or progress.step != bundle.step:
        raise DataError(f"{directory}: its state is that of step {progress.step}")
    return ResumePoint(bundle, training.tensors, progress)


def extend_run(
    record: RunRecord, progress: Progress, request: TrainingRequest, notice: Callable[[str], None]
) -> tuple[RunRecord, Progress]:
    """The run with another length, if one is asked for: its plan, and so its decay, changes at the present step.

    Raises:
        UsageError: the run has gone that far already.
    """
    asked = [name for name in _LENGTHS if getattr(request, name) is not None]
    if not asked:
        return record, progress
    training = record.training
    tokens_per_step = training.batch_size * training.window
    if request.budget is not None:
        speed = progress.timed_steps_per_second
        left = request.budget - progress.seconds
        if speed:
            total = progress.step + math.floor(left * speed)
        else:  # no step was timed yet: the budget will correct the first estimate
            total = max(training.steps, progress.step + _UNTIMED_STEPS) if left > 0 else progress.step
    elif request.steps is not None:
        total = request.steps
    else:
        assert request.epochs is not None
        training_tokens = count_training_tokens(record.corpus.tokens, record.validation_split)
        total = round(request.epochs * training_tokens / tokens_per_step)
    if request.budget is None and record.budget_seconds is None and total == progress.total_steps:
        return record, progress
    if total <= progress.step:
        raise UsageError(
            f"--{asked[0]} {getattr(request, asked[0]):g} is no more than this run has had: {progress.step:,} steps, "
            f"{progress.seconds:.0f} s"
        )
    notice(f"the run now has {total:,} steps in all instead of {progress.total_steps:,}: its decay is planned anew")
    if progress.step == 0:
        training = dataclasses.replace(training, steps=total, replans=())
    else:
        earlier = tuple(replan for replan in training.replans if replan[0] < progress.step)
        training = dataclasses.replace(training, replans=(*earlier, (progress.step, total)))
    progress = dataclasses.replace(progress, total_steps=total, validations_without_improvement=0)
    return dataclasses.replace(record, training=training, budget_seconds=request.budget), progress


def discard_checkpoints_after(run: Path, step: int) -> None:
    """Removes from `run` what interrupted writes left, and the checkpoints after `step`, which are damaged.

    Raises:
        CannotCreateError, StorageError: something cannot be removed.
    """
    remove_temporaries(run)
    remove_temporaries(run / CHECKPOINTS_FOLDER)
    kept = checkpoint_directory(run, step)
    directories = step_directories(run)
    after = directories.index(kept) + 1 if kept in directories else 0
    for directory in directories[after:]:
        remove_directory(directory)
