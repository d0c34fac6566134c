"""Write checkpoints, `history.jsonl` and corrected plans while a trainer trains; the trainer itself writes no files."""

import dataclasses
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from quickfox.checkpoints.checkpoint import ModelBundle, TrainingState, save_checkpoint
from quickfox.checkpoints.run_directory import checkpoint_directory, list_checkpoints, prune_checkpoints, sort_by_loss
from quickfox.config.model import ModelConfig
from quickfox.config.sampling import SamplingConfig
from quickfox.config.schema import to_dict
from quickfox.generation.sampler import generate
from quickfox.models.parameters import parameter_count
from quickfox.models.registry import build_language_model
from quickfox.tokenizers.base import Tokenizer, start_of_text
from quickfox.training.engine.events import Event, Replanned, RunFinished, RunInterrupted, StepsCompleted, Validated
from quickfox.training.engine.ngram_trainer import NgramTrainer
from quickfox.training.engine.progress import Progress
from quickfox.training.run.record import CheckpointInterval, RunRecord, record_event, write_record

if TYPE_CHECKING:
    from quickfox.training.engine.trainer import Trainer

SAMPLE_LENGTH = 160  # tokens generated after each validation
GENERATION_DEFAULTS: dict[str, Any] = {"temperature": 0.8}


class Recorder:
    """Records the progress of a new or restored trainer in the run directory and passes its events on."""

    def __init__(
        self,
        directory: Path,
        record: RunRecord,
        tokenizer: Tokenizer,
        trainer: "Trainer | NgramTrainer",
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
        """Yields the trainer's events, `Validated` once its checkpoint is committed, then the end of the run."""
        progress = self._trainer.progress
        for event in self._trainer.run():
            match event:
                case Validated():
                    # History before checkpoint: resuming removes a surplus line but cannot restore a missing one.
                    record_event(self._directory, event)
                    self._save(event)
                    event = dataclasses.replace(event, sample=self._sample(event.step))
                case Replanned():
                    self._record_plan()
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
        if self._trainer.is_finished:
            yield run_finished(self._directory, self._record, progress)
        else:  # an n-gram model, stopped before its only step
            yield RunInterrupted(self._directory, progress.step)

    def _save(self, validated: Validated | None) -> None:
        """Saves a checkpoint unless this step has one, and prunes older ones.

        If the n-gram tables are not reported yet, it has none, and a run that is resumed from it estimates them again.
        """
        trainer, progress = self._trainer, self._trainer.progress
        if self._saved_step == progress.step:
            return
        trainer.compare_weights()
        progress.seconds = time.monotonic() - trainer.started
        config, tensors = self._model()
        bundle = ModelBundle(
            config=config,
            tokenizer=self._tokenizer,
            parameters=tensors,
            step=progress.step,
            validation_loss=validated.validation_loss if validated else None,
            network_loss=validated.network_loss if validated else None,
            sampling=GENERATION_DEFAULTS,
        )
        state = TrainingState(trainer.training_tensors(), to_dict(progress))
        save_checkpoint(checkpoint_directory(self._directory, progress.step), bundle, state)
        self._saved_step, self._saved_at = progress.step, time.monotonic()
        prune_checkpoints(self._directory)

    def _model(self) -> tuple[ModelConfig, dict[str, np.ndarray]]:
        """The configuration and all tensors of the present model, with the n-gram tables once they are reported."""
        trainer = self._trainer
        if trainer.ngrams is None or not trainer.ngrams.is_reported:
            return trainer.model, trainer.model_tensors()
        tables = trainer.ngrams.tables
        return dataclasses.replace(trainer.model, ngrams=tables.ngrams), trainer.model_tensors() | tables.tensors

    def _record_plan(self) -> None:
        """Writes the corrected plan to `run.json`."""
        replans = tuple(sorted(self._trainer.replans.items()))
        if replans != self._record.training.replans:
            training = dataclasses.replace(self._record.training, replans=replans)
            self._record = dataclasses.replace(self._record, training=training)
            write_record(self._directory, self._record)

    def _sample(self, step: int) -> str:
        """A short text generated by the NumPy runtime."""
        settings = SamplingConfig(length=SAMPLE_LENGTH, random_seed=step, **GENERATION_DEFAULTS)
        start = start_of_text(self._tokenizer)
        prompt = start if len(start) else [step % self._tokenizer.vocabulary_size]
        model = build_language_model(*self._model())
        return self._tokenizer.decode(list(generate(model, prompt, settings)))


def run_finished(directory: Path, record: RunRecord, progress: Progress) -> RunFinished:
    """The last event of a finished run."""
    best = sort_by_loss(list_checkpoints(directory))[0]
    tokens_per_step = (
        record.training.batch_size * record.training.window if record.model.has_network else record.training_tokens
    )
    tokens = progress.step * tokens_per_step
    return RunFinished(
        directory=directory,
        checkpoint=best.directory,
        epochs=tokens / record.training_tokens,
        steps=progress.step,
        tokens=tokens,
        tokens_per_second=progress.timed_steps_per_second * tokens_per_step,
        train_loss=progress.train_loss,
        validation_loss=progress.validation_loss,
        best_validation_loss=progress.best_validation_loss,
        network_loss=best.manifest.network_loss,
        parameters=parameter_count(record.model),
        stopped_early=progress.step < progress.total_steps,
        workers=record.workers,
    )
