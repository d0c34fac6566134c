"""A training run that goes on: from what is left of it to `recorded_run.py`, which does the rest as for a new one.

What it starts from, and what may differ from before, is decided in `resuming.py`.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from quickfox.checkpoints.run_directory import TOKENS_FILE
from quickfox.config.training import TrainingRequest
from quickfox.errors import DataError
from quickfox.training.distributed.messaging import Control
from quickfox.training.distributed.rendezvous import joined
from quickfox.training.engine.events import Event, Surroundings
from quickfox.training.engine.progress import Progress
from quickfox.training.planning.cost import check_disk_space
from quickfox.training.run.dataset import reuse_tokens
from quickfox.training.run.directory import locked
from quickfox.training.run.execute import train_as_recorded
from quickfox.training.run.record import (
    CheckpointInterval,
    RunRecord,
    current_versions,
    cut_history,
    read_record,
    write_record,
)
from quickfox.training.run.recorder import run_finished
from quickfox.training.run.resume_point import (
    ResumePoint,
    discard_after,
    extended,
    find_run,
    newest_resume_point,
    refuse_changes,
)
from quickfox.training.run.workers import (
    attentive,
    compare_texts,
    follow,
    greeting,
    refuse_indivisible_batch,
    refuse_indivisible_devices,
    refuse_standard_input,
    shared_anew,
    start_together,
    tell_text,
)
from quickfox.training.tensorflow_runtime import import_tensorflow

if TYPE_CHECKING:
    pass


def resume_run(
    run: Path | None,
    request: TrainingRequest,
    *,
    surroundings: Surroundings,
    checkpoint_every: str | None = None,
) -> Iterator[Event]:
    """Goes on with a run from its newest undamaged checkpoint, as if it had never stopped.

    Args:
        run: its folder; None: the newest under `runs`.
        request: what may differ: its length. Every other setting given must be the run's own.
        surroundings: of the run; its budget counts the time of earlier parts too.
        checkpoint_every: see CheckpointInterval; None: as before.

    Raises:
        UsageError: a setting is not the run's own.
        DataError: the text or vocabulary is not the run's, or no checkpoint is undamaged.
        QuickfoxError: any of its other children.
    """
    spec = surroundings.cluster
    with joined(spec, greeting(request, resumes=True), surroundings.leave) as control:
        surroundings = attentive(surroundings, control)
        if spec is not None and not spec.is_chief:
            yield from follow(control, spec, None, surroundings)
        else:
            yield from _lead_on(find_run(run, surroundings.notice), request, surroundings, checkpoint_every, control)


def _lead_on(
    directory: Path,
    request: TrainingRequest,
    surroundings: Surroundings,
    checkpoint_every: str | None,
    control: Control,
) -> Iterator[Event]:
    """`resume_run`, as the chief of the others."""
    with locked(directory):
        record = read_record(directory)
        refuse_changes(request, record)
        refuse_indivisible_batch(surroundings.cluster, record.training.batch_size)
        refuse_standard_input(surroundings.cluster, record.corpus.files)
        record = shared_anew(record, surroundings)
        if checkpoint_every is not None:
            record = dataclasses.replace(record, checkpoint_every=str(CheckpointInterval.parse(checkpoint_every)))
        point = newest_resume_point(directory, record, surroundings.notice)
        progress = point.progress if point else Progress(total_steps=record.training.steps)
        record, progress = extended(record, progress, request, surroundings.notice)
        if point is not None:
            point = dataclasses.replace(point, progress=progress)
            if progress.is_finished(record.training.patience):
                surroundings.notice(f"{directory} is finished; to go on, ask for more --epochs, --steps or --budget")
                control.tell(nothing_to_do=True)
                yield run_finished(directory, record, progress)
                return
        if record.versions != current_versions():
            surroundings.notice("other versions of programs than before: the run will not be the same to the last bit")
        yield from _resume(directory, record, point, progress, surroundings, control)


def _resume(
    directory: Path,
    record: RunRecord,
    point: ResumePoint | None,
    progress: Progress,
    surroundings: Surroundings,
    control: Control,
) -> Iterator[Event]:
    tokens_path = directory / TOKENS_FILE
    import_tensorflow()  # before anything is written: it may not be there
    tokenizer = reuse_tokens(directory, record, tokens_path, surroundings)
    if point and point.bundle.tokenizer != tokenizer:
        raise DataError(f"{directory}: the vocabulary of its newest checkpoint is not the run's")
    check_disk_space(directory, record.model, record.training)
    tell_text(control, tokenizer, record.corpus.files)
    compare_texts(control, surroundings.cluster, record.corpus.sha256)
    cluster = start_together(control, surroundings.cluster, record.training.threads)
    refuse_indivisible_devices(cluster, record.training.batch_size)
    discard_after(directory, progress.step)
    write_record(directory, record)
    cut_history(directory, progress.step)
    earlier = dataclasses.replace(surroundings, started=surroundings.started - progress.seconds)
    yield from train_as_recorded(directory, record, tokenizer, tokens_path, point, earlier, cluster)
