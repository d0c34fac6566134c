"""A run whose record is written, new or resumed, trained to its end.

The trainer trains and writes nothing, the recorder writes and trains nothing; here they are put together.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from quickfox.data.dataset import open_corpus_tokens, remove_tokens, split_tokens
from quickfox.models.parameters import parameter_count
from quickfox.tokenizers.base import Tokenizer
from quickfox.training.engine.events import Event, RunContext, RunFinished, RunInterrupted, RunStarted
from quickfox.training.run.record import CheckpointInterval, RunRecord
from quickfox.training.run.recorder import Recorder
from quickfox.training.run.resume_point import ResumePoint
from quickfox.training.run.transfer import reopen_pretrained, transfer_weights
from quickfox.training.run.workers import send_run_config

if TYPE_CHECKING:
    from quickfox.training.distributed.strategy import Cluster


def execute_run(
    directory: Path,
    record: RunRecord,
    tokenizer: Tokenizer,
    tokens_path: Path,
    point: ResumePoint | None,
    run_context: RunContext,
    cluster: "Cluster",
) -> Iterator[Event]:
    """Trains to the end, telling what happens.

    Args:
        directory: of the run, locked.
        record: as it is written there.
        tokenizer, tokens_path: of its text.
        point: the checkpoint to go on from; None: start at step 0.
        surroundings: of the run.
        cluster: all devices, started.

    Raises:
        QuickfoxError: any of its children.
    """
    tokens = open_corpus_tokens(tokens_path, tokenizer.token_dtype, has_loss_mask=record.corpus.has_documents)
    training_tokens, validation_tokens = split_tokens(tokens, record.validation_split)
    yield RunStarted(
        directory=directory,
        model=record.model,
        training=record.training,
        budget_seconds=record.budget_seconds,
        parameters=parameter_count(record.model),
        training_tokens=len(training_tokens),
        validation_tokens=len(validation_tokens),
        step=point.progress.step if point else 0,
        workers=cluster.size,
    )
    from quickfox.training.engine.trainer import Trainer  # needs TensorFlow, which has been started by now

    control = cluster.control
    send_run_config(control, directory, record)
    interval = CheckpointInterval.parse(record.checkpoint_every)
    trainer = Trainer(
        record.model,
        record.training,
        training_tokens,
        validation_tokens,
        run_context.started,
        record.budget_seconds,
        interval.steps,
        cluster,
    )
    if point is not None:
        trainer.restore(point.bundle.parameters, point.tensors, point.progress)
    elif record.init_from is not None:
        trainer.load_weights(
            transfer_weights(trainer.model_tensors(), tokenizer, reopen_pretrained(record.init_from).bundle)
        )

    def stop_requested() -> bool:
        return run_context.stop_requested() or control.stop_requested()

    for event in Recorder(directory, record, tokenizer, trainer, interval).events(stop_requested):
        if isinstance(event, RunFinished) and not run_context.keep_tokens:
            remove_tokens(tokens_path)
        if isinstance(event, RunFinished | RunInterrupted):
            control.send(do="end", interrupted=isinstance(event, RunInterrupted))
        yield event
