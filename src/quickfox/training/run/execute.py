"""A run whose record is written, new or resumed, trained to its end.

The trainer trains and writes nothing, the recorder writes and trains nothing; here they are put together.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from quickfox.data.dataset import open_corpus_tokens, remove_tokens, split_tokens
from quickfox.models.parameters import parameter_count
from quickfox.tokenizers.base import Tokenizer
from quickfox.training.engine.events import Event, RunFinished, RunInterrupted, RunStarted, Surroundings
from quickfox.training.run.record import CheckpointInterval, RunRecord
from quickfox.training.run.recorder import Recorder
from quickfox.training.run.resume_point import ResumePoint
from quickfox.training.run.transfer import reopen_start, transferred
from quickfox.training.run.workers import tell_run

if TYPE_CHECKING:
    from quickfox.training.distributed.strategy import Cluster


def train_as_recorded(
    directory: Path,
    record: RunRecord,
    tokenizer: Tokenizer,
    tokens_path: Path,
    point: ResumePoint | None,
    surroundings: Surroundings,
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
    tell_run(control, directory, record)
    interval = CheckpointInterval.parse(record.checkpoint_every)
    trainer = Trainer(
        record.model,
        record.training,
        training_tokens,
        validation_tokens,
        surroundings.started,
        record.budget_seconds,
        interval.steps,
        cluster,
    )
    if point is not None:
        trainer.restore(point.bundle.parameters, point.tensors, point.progress)
    elif record.init_from is not None:
        trainer.start_from(transferred(trainer.model_tensors(), tokenizer, reopen_start(record.init_from).bundle))

    def stop_requested() -> bool:
        return surroundings.stop_requested() or control.stop_requested()

    for event in Recorder(directory, record, tokenizer, trainer, interval).events(stop_requested):
        if isinstance(event, RunFinished) and not surroundings.keep_tokens:
            remove_tokens(tokens_path)
        if isinstance(event, RunFinished | RunInterrupted):
            control.tell(do="end", interrupted=isinstance(event, RunInterrupted))
        yield event
