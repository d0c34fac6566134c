"""A training run as it is written down: checkpoints and their pruning, the history, corrected plans.

The trainer trains and writes nothing; this room writes and trains nothing.
"""

import dataclasses
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quickfox.checkpoints.checkpoint import ModelBundle, TrainingState, save_checkpoint
from quickfox.checkpoints.run_directory import best_first, checkpoint_directory, checkpoints_of, prune_checkpoints
from quickfox.config.sampling import SamplingConfig
from quickfox.config.schema import to_dict
from quickfox.data.dataset import count_training_tokens
from quickfox.generation.sampler import generate
from quickfox.models.parameters import parameter_count
from quickfox.models.registry import build_language_model
from quickfox.tokenizers.base import Tokenizer, start_of_text
from quickfox.training.engine.events import Event, Replanned, RunFinished, RunInterrupted, StepsCompleted, Validated
from quickfox.training.engine.progress import Progress
from quickfox.training.run.record import CheckpointInterval, RunRecord, record_event, write_record

if TYPE_CHECKING:
    from quickfox.training.engine.trainer import Trainer

SAMPLE_LENGTH = 160  # tokens of the model's own text after each validation
GENERATION_DEFAULTS: dict[str, Any] = {"temperature": 0.8}


class Recorder:
    """Writes down what a trainer does, and passes its events on.

    Args:
        directory: of the run.
        record: what `run.json` holds; written anew when the plan changes.
        tokenizer: for the checkpoints.
        trainer: what is recorded, at its beginning or restored.
        interval: from one checkpoint to the next, besides those at validations.
    """

    def __init__(
        self,
        directory: Path,
        record: RunRecord,
        tokenizer: Tokenizer,
        trainer: "Trainer",
        interval: CheckpointInterval,
    ) -> None:
        self._directory = directory
        self._record = record
        self._tokenizer = tokenizer
        self._trainer = trainer
        self._interval = interval
        self._saved_step = trainer.progress.step
        self._saved_at = time.monotonic()

    def events(self, stop_requested: Callable[[], bool]) -> Iterator[Event]:
        """The trainer's events, each `Validated` one after its checkpoint is committed; last, how the run ended."""
        progress = self._trainer.progress
        for event in self._trainer.run():
            match event:
                case Validated():
                    # First the history: a line too many is cut off when resuming, one too few would be missing.
                    record_event(self._directory, event)
                    self._save(event.validation_loss)
                    event = dataclasses.replace(event, sample=self._sample(event.step))
                case Replanned():
                    self._replan()
                    record_event(self._directory, event)
                case StepsCompleted():
                    seconds = time.monotonic() - self._saved_at
                    if self._interval.is_due(event.step, seconds) or stop_requested():
                        self._save(None)
            yield event
            if isinstance(event, StepsCompleted) and stop_requested() and not self._trainer.is_finished:
                self._save(None)
                yield RunInterrupted(self._directory, progress.step)
                return
        yield run_finished(self._directory, self._record, progress, self._trainer.cluster.size)

    def _save(self, validation_loss: float | None) -> None:
        """Saves a checkpoint, unless there is one of this step, and prunes the older ones."""
        trainer, progress = self._trainer, self._trainer.progress
        if self._saved_step == progress.step:
            return
        trainer.compare_weights()
        progress.seconds = time.monotonic() - trainer.started
        bundle = ModelBundle(
            trainer.model, self._tokenizer, trainer.model_tensors(), progress.step, validation_loss, GENERATION_DEFAULTS
        )
        state = TrainingState(trainer.training_tensors(), to_dict(progress))
        save_checkpoint(checkpoint_directory(self._directory, progress.step), bundle, state)
        self._saved_step, self._saved_at = progress.step, time.monotonic()
        prune_checkpoints(self._directory)

    def _replan(self) -> None:
        """Puts the corrected plan into run.json."""
        replans = tuple(sorted(self._trainer.replans.items()))
        if replans != self._record.training.replans:
            training = dataclasses.replace(self._record.training, replans=replans)
            self._record = dataclasses.replace(self._record, training=training)
            write_record(self._directory, self._record)

    def _sample(self, step: int) -> str:
        """A little text by the NumPy runtime."""
        settings = SamplingConfig(length=SAMPLE_LENGTH, random_seed=step, **GENERATION_DEFAULTS)
        prompt = start_of_text(self._tokenizer)
        start = prompt if len(prompt) else [step % self._tokenizer.vocabulary_size]
        model = build_language_model(self._trainer.model, self._trainer.model_tensors())
        return self._tokenizer.decode(list(generate(model, start, settings)))


def run_finished(directory: Path, record: RunRecord, progress: Progress, workers: int = 1) -> RunFinished:
    """The event that a finished run ends with, or would end with if it were resumed."""
    tokens_per_step = record.training.batch_size * record.training.window
    tokens = progress.step * tokens_per_step
    return RunFinished(
        run=directory,
        checkpoint=best_first(checkpoints_of(directory))[0].directory,
        epochs=tokens / count_training_tokens(record.corpus.tokens, record.validation_split),
        steps=progress.step,
        tokens=tokens,
        tokens_per_second=progress.timed_steps_per_second * tokens_per_step,
        train_loss=progress.train_loss,
        validation_loss=progress.validation_loss,
        best_validation_loss=progress.best_validation_loss,
        parameters=parameter_count(record.model),
        stopped_early=progress.step < progress.total_steps,
        workers=workers,
    )
