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
from quickfox.training.distributed.rendezvous import connect_workers
from quickfox.training.engine.events import Event, RunContext
from quickfox.training.engine.progress import Progress
from quickfox.training.planning.cost import check_disk_space
from quickfox.training.run.dataset import ensure_tokens
from quickfox.training.run.directory import run_lock
from quickfox.training.run.execute import execute_run
from quickfox.training.run.record import (
    CheckpointInterval,
    RunRecord,
    current_versions,
    read_record,
    truncate_history,
    write_record,
)
from quickfox.training.run.recorder import run_finished
from quickfox.training.run.resume_point import (
    ResumePoint,
    check_unchanged,
    discard_checkpoints_after,
    extend_run,
    find_run,
    load_resume_point,
)
from quickfox.training.run.workers import (
    check_batch_divides,
    check_batch_divides_devices,
    check_peers_while_reading,
    check_same_text,
    check_sources,
    handshake,
    rescale_to_workers,
    run_worker,
    send_tokenizer,
    start_tensorflow_on_all,
)
from quickfox.training.tensorflow_runtime import import_tensorflow

if TYPE_CHECKING:
    pass


def resume_run(
    run: Path | None,
    request: TrainingRequest,
    *,
    run_context: RunContext,
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
    spec = run_context.cluster
    with connect_workers(spec, handshake(request, resumes=True), run_context.abort) as control:
        run_context = check_peers_while_reading(run_context, control)
        if spec is not None and not spec.is_chief:
            yield from run_worker(control, spec, None, run_context)
        else:
            yield from _resume_chief(find_run(run, run_context.notify), request, run_context, checkpoint_every, control)


def _resume_chief(
    directory: Path,
    request: TrainingRequest,
    run_context: RunContext,
    checkpoint_every: str | None,
    control: Control,
) -> Iterator[Event]:
    """`resume_run`, as the chief of the others."""
    with run_lock(directory):
        record = read_record(directory)
        check_unchanged(request, record)
        check_batch_divides(run_context.cluster, record.training.batch_size)
        check_sources(run_context.cluster, record.corpus.files)
        record = rescale_to_workers(record, run_context)
        if checkpoint_every is not None:
            record = dataclasses.replace(record, checkpoint_every=str(CheckpointInterval.parse(checkpoint_every)))
        point = load_resume_point(directory, record, run_context.notify)
        progress = point.progress if point else Progress(total_steps=record.training.steps)
        record, progress = extend_run(record, progress, request, run_context.notify)
        if point is not None:
            point = dataclasses.replace(point, progress=progress)
            if progress.is_finished(record.training.patience):
                run_context.notify(f"{directory} is finished; to go on, ask for more --epochs, --steps or --budget")
                control.send(nothing_to_do=True)
                yield run_finished(directory, record, progress)
                return
        if record.versions != current_versions():
            run_context.notify("other versions of programs than before: the run will not be the same to the last bit")
        yield from _resume(directory, record, point, progress, run_context, control)


def _resume(
    directory: Path,
    record: RunRecord,
    point: ResumePoint | None,
    progress: Progress,
    run_context: RunContext,
    control: Control,
) -> Iterator[Event]:
    tokens_path = directory / TOKENS_FILE
    import_tensorflow()  # before anything is written: it may not be there
    tokenizer = ensure_tokens(directory, record, tokens_path, run_context)
    if point and point.bundle.tokenizer != tokenizer:
        raise DataError(f"{directory}: the vocabulary of its newest checkpoint is not the run's")
    check_disk_space(directory, record.model, record.training)
    send_tokenizer(control, tokenizer, record.corpus.files)
    check_same_text(control, run_context.cluster, record.corpus.sha256)
    cluster = start_tensorflow_on_all(control, run_context.cluster, record.training.threads)
    check_batch_divides_devices(cluster, record.training.batch_size)
    discard_checkpoints_after(directory, progress.step)
    write_record(directory, record)
    truncate_history(directory, progress.step)
    earlier = dataclasses.replace(run_context, started=run_context.started - progress.seconds)
    yield from execute_run(directory, record, tokenizer, tokens_path, point, earlier, cluster)
