"""Resume a run from its newest undamaged checkpoint."""

import dataclasses
from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from quickfox.checkpoints.run_directory import TOKENS_FILE, finish_replacements
from quickfox.config.training import TrainingRequest
from quickfox.data.dataset import remove_tokens
from quickfox.errors import DataError, UsageError
from quickfox.models.parameters import ngram_specs
from quickfox.tokenizers.base import Tokenizer
from quickfox.training.engine.events import Event, RunContext
from quickfox.training.engine.ngrams import NgramEstimation, NgramTables
from quickfox.training.engine.progress import Progress
from quickfox.training.planning.cost import check_disk_space, check_memory
from quickfox.training.planning.ngrams import check_ngram_workers
from quickfox.training.run.dataset import open_run_split
from quickfox.training.run.directory import run_lock
from quickfox.training.run.execute import execute_run
from quickfox.training.run.history import truncate_history
from quickfox.training.run.record import (
    CheckpointInterval,
    RunRecord,
    current_versions,
    read_record,
    write_record,
)
from quickfox.training.run.recorded_text import ensure_tokens
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
    check_sources,
    end_workers,
    open_devices,
    rescale_to_workers,
    run_on_all_workers,
    send_run,
)
from quickfox.training.tensorflow_runtime import import_tensorflow

if TYPE_CHECKING:
    from quickfox.training.distributed.strategy import Cluster


def resume_run(
    run: Path | None, request: TrainingRequest, *, run_context: RunContext, checkpoint_every: str | None = None
) -> Iterator[Event]:
    """Continues a run from its newest undamaged checkpoint, with the result of an uninterrupted run.

    Args:
        run: the run directory; None: the run under `runs` that was written last.
        request: the length of the run may differ; all other settings given must be those of the run.
        run_context: the program that the run is part of; a time budget includes the time before the interruption.
        checkpoint_every: see CheckpointInterval; None: as before.

    Raises:
        UsageError: a setting differs from that of the run.
        DataError: the text or the vocabulary has changed, or all checkpoints are damaged.
        QuickfoxError: any other subclass.
    """
    yield from run_on_all_workers(
        request, None, run_context, partial(_resume_chief, run, request, checkpoint_every, run_context)
    )


def _resume_chief(
    run: Path | None,
    request: TrainingRequest,
    checkpoint_every: str | None,
    run_context: RunContext,
    workers: "Cluster | None",
) -> Iterator[Event]:
    """`resume_run` in the chief, or in the only process."""
    directory = find_run(run, run_context.notify)
    with run_lock(directory):
        record = read_record(directory)
        finish_replacements(directory)
        if record.corpus.has_documents and record.corpus.documents is None:
            raise DataError(
                f"{directory} was started by an earlier version, which read documents in another order: start a new "
                f"run from its weights: llm train CORPUS --init-from {directory}"
            )
        check_unchanged(request, record)
        if not record.model.has_network:
            check_ngram_workers(run_context.cluster.size)
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
                run_context.notify(f"{directory} is finished: resume it with more epochs, steps or budget")
                end_workers(workers)
                if not run_context.keep_tokens:  # it may have been killed before it removed them
                    remove_tokens(directory / TOKENS_FILE)
                yield run_finished(directory, record, progress)
                return
        if record.versions != current_versions():
            run_context.notify("versions of programs have changed: the result will not be bit-identical")
        run_context = dataclasses.replace(run_context, started=run_context.started - progress.seconds)
        yield from _continue_training(directory, record, point, run_context, workers)


def _continue_training(
    directory: Path,
    record: RunRecord,
    point: ResumePoint | None,
    run_context: RunContext,
    workers: "Cluster | None",
) -> Iterator[Event]:
    if record.model.has_network:
        import_tensorflow()  # it may be missing: fail before anything is written
    tokenizer = ensure_tokens(directory, record, run_context)
    if point and point.bundle.tokenizer != tokenizer:
        raise DataError(f"{directory}: the vocabulary of its newest checkpoint is not that of the run")
    check_memory(record.model, record.training, training_tokens=record.training_tokens, workers=record.workers)
    check_disk_space(directory, record.model, record.training, training_tokens=record.training_tokens)
    ngrams = _restore_ngrams(directory, record, tokenizer, point)
    cluster = None
    with ngrams or nullcontext():
        if record.model.has_network:
            cluster = open_devices(workers, record.training.threads)
            _check_batch_divides_devices(cluster, record.training.batch_size)
        send_run(workers, directory, record, tokenizer)
        step = point.progress.step if point else 0
        discard_checkpoints_after(directory, step)
        write_record(directory, record)
        truncate_history(directory, step)
        yield from execute_run(directory, record, tokenizer, point, run_context, cluster, ngrams)


def _restore_ngrams(
    directory: Path, record: RunRecord, tokenizer: Tokenizer, point: ResumePoint | None
) -> NgramEstimation | None:
    """The n-gram tables of the checkpoint, or their new estimation if it has none; None if the run has none."""
    if record.training.ngram_order == 0:
        return None
    training_tokens, validation_tokens = open_run_split(directory, tokenizer, record)
    has_gate = record.model.ngram_gate > 0
    if point and point.bundle.config.ngrams:
        config, parameters = point.bundle.config, point.bundle.parameters
        tables = NgramTables(config.ngrams, {name: parameters[name] for name in ngram_specs(config)})
        return NgramEstimation.restore(tables, training_tokens, in_own_process=True, has_gate=has_gate)
    return NgramEstimation.start(
        record.training.ngram_order,
        tokenizer.vocabulary_size,
        training_tokens,
        validation_tokens,
        record.training.threads,
        max_tokens=record.training.ngram_tokens,
        in_own_process=record.model.has_network,
        has_gate=has_gate,
    )


def _check_batch_divides_devices(cluster: "Cluster", batch_size: int) -> None:
    """Raises UsageError if the batch size of a resumed run is not divisible by the present number of devices."""
    if batch_size % cluster.replicas:
        raise UsageError(
            f"batch_size {batch_size} of the run is not divisible by {cluster.replicas} devices: change "
            f"CUDA_VISIBLE_DEVICES",
            "batch_size",
        )
