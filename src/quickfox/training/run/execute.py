"""Train a new or resumed run, whose record is already written, to its end."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from quickfox.checkpoints.run_directory import TOKENS_FILE
from quickfox.data.dataset import Tokens, remove_tokens
from quickfox.models.parameters import parameter_count
from quickfox.tokenizers.base import Tokenizer
from quickfox.training.engine.events import Event, RunContext, RunFinished, RunInterrupted, RunStarted
from quickfox.training.engine.ngram_trainer import NgramTrainer
from quickfox.training.engine.ngrams import NgramEstimation
from quickfox.training.planning.time_budget import MAX_VALIDATION_TOKENS
from quickfox.training.run.dataset import open_run_split
from quickfox.training.run.record import CheckpointInterval, RunRecord
from quickfox.training.run.recorder import Recorder
from quickfox.training.run.resume_point import ResumePoint
from quickfox.training.run.transfer import reopen_pretrained, transfer_weights

if TYPE_CHECKING:
    from quickfox.training.distributed.strategy import Cluster
    from quickfox.training.engine.trainer import Trainer


def execute_run(
    directory: Path,
    record: RunRecord,
    tokenizer: Tokenizer,
    resume_point: ResumePoint | None,
    run_context: RunContext,
    cluster: "Cluster | None",
    ngrams: NgramEstimation | None,
) -> Iterator[Event]:
    """Trains a run to its end in its locked directory, which holds `run.json` and the token files; yields events.

    Args:
        resume_point: None if the run starts at step 0.
        cluster: the devices, on which TensorFlow is started; None: the model has no network.
        ngrams: the n-gram tables; None: the model has none.

    Raises:
        QuickfoxError: any subclass.
    """
    tokens_path = directory / TOKENS_FILE
    tokens = open_run_split(directory, tokenizer, record)
    yield run_started(directory, record, resume_point.progress.step if resume_point else 0)
    interval = CheckpointInterval.parse(record.checkpoint_every)

    def stop_requested() -> bool:
        return run_context.stop_requested() or (cluster is not None and cluster.stop_requested)

    trainer: Trainer | NgramTrainer
    if cluster:
        trainer = _build_trainer(record, tokenizer, tokens, resume_point, run_context, cluster, ngrams)
    else:
        assert ngrams is not None, "a model without a network has n-gram tables"
        trainer = NgramTrainer(record.model, ngrams, run_context.started, stop_requested)
    recorder = Recorder(directory, record, tokenizer, trainer, interval, validation_tokens=tokens[1])
    for event in recorder.events(stop_requested):
        if isinstance(event, RunFinished) and not run_context.keep_tokens:
            remove_tokens(tokens_path)
        if isinstance(event, RunFinished | RunInterrupted):
            trainer.end(is_interrupted=isinstance(event, RunInterrupted))
        yield event


def _build_trainer(
    record: RunRecord,
    tokenizer: Tokenizer,
    tokens: tuple[Tokens, Tokens],
    resume_point: ResumePoint | None,
    run_context: RunContext,
    cluster: "Cluster",
    ngrams: NgramEstimation | None,
) -> "Trainer":
    """The trainer of a network, with the weights of the checkpoint to resume from or of the pretrained model."""
    from quickfox.training.engine.trainer import Trainer  # imports TensorFlow

    # What may fail is read before the workers start together.
    pretrained = reopen_pretrained(record.init_from).bundle if record.init_from and resume_point is None else None
    trainer = Trainer(
        record.model,
        record.training,
        *tokens,
        run_context.started,
        record.budget_seconds,
        CheckpointInterval.parse(record.checkpoint_every).steps,
        cluster,
        ngrams,
        run_context.stop_requested,
    )
    if resume_point is not None:
        trainer.restore(resume_point.bundle.parameters, resume_point.tensors, resume_point.progress)
    elif pretrained is not None:
        trainer.load_weights(transfer_weights(trainer.model_tensors(), tokenizer, pretrained))
    return trainer


def run_started(directory: Path, record: RunRecord, step: int = 0) -> RunStarted:
    """The first event of a run that starts at step `step`."""
    held_out = record.corpus.tokens - record.training_tokens
    return RunStarted(
        directory=directory,
        model=record.model,
        training=record.training,
        budget_seconds=record.budget_seconds,
        parameters=parameter_count(record.model),
        training_tokens=record.training_tokens,
        validation_tokens=min(held_out, MAX_VALIDATION_TOKENS),
        held_out_tokens=held_out,
        validation_targets=record.corpus.validation_targets,
        documents=record.corpus.documents,
        training_documents=record.split.training_units if record.corpus.documents and record.split else None,
        step=step,
        workers=record.workers,
    )
