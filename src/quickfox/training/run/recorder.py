"""Write checkpoints, `history.jsonl` and corrected plans while a trainer trains; the trainer itself writes no files."""

import dataclasses
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from quickfox.checkpoints.checkpoint import ModelBundle, TrainingState
from quickfox.checkpoints.run_directory import list_checkpoints, prune_checkpoints, save_run_checkpoint, sort_by_loss
from quickfox.config.model import ModelConfig
from quickfox.config.sampling import SamplingConfig
from quickfox.config.schema import to_dict
from quickfox.data.dataset import Tokens
from quickfox.data.frames import Row, first_frame_id
from quickfox.errors import DataError
from quickfox.generation.greedy import complete_greedily
from quickfox.generation.sampler import generate
from quickfox.models.inputs import collect_frames
from quickfox.models.parameters import parameter_count
from quickfox.models.registry import build_language_model
from quickfox.tokenizers.base import TokenIds, Tokenizer, start_of_text
from quickfox.training.engine.events import (
    Event,
    Replanned,
    RunFinished,
    RunInterrupted,
    Sample,
    StepsCompleted,
    Validated,
    WaitingForNgrams,
)
from quickfox.training.engine.ngram_trainer import NgramTrainer
from quickfox.training.engine.progress import Progress, ValidationStoppedError
from quickfox.training.run.history import is_recorded, record_event, record_steps
from quickfox.training.run.record import CheckpointInterval, RunRecord, write_record

if TYPE_CHECKING:
    from quickfox.training.engine.trainer import Trainer

SAMPLE_LENGTHS = (160, 80, 80)
"""Tokens generated after each validation: from the start of a text, and from two prompts of the validation text."""

GENERATION_DEFAULTS: dict[str, Any] = {"temperature": 0.8}

SIGNAL_DEFAULTS: dict[str, Any] = {"temperature": 0.0}  # there is one right answer

_EXAMPLES = 3
_MAX_PROMPT_TOKENS = 256
_PROMPT_CHARACTERS = 24
_WORDS = re.compile(rf"\s(\S.{{{_PROMPT_CHARACTERS},{2 * _PROMPT_CHARACTERS}}}?)(?=\s)", re.DOTALL)


class Recorder:
    """Records the progress of a new or restored trainer in the run directory and passes its events on.

    Args:
        directory, record: of the run.
        tokenizer: of the run.
        trainer: yields the events.
        interval: between checkpoints.
        validation_tokens: the validation text, from which the prompts of samples are taken; may be empty.
    """

    def __init__(
        self,
        directory: Path,
        record: RunRecord,
        tokenizer: Tokenizer,
        trainer: "Trainer | NgramTrainer",
        interval: CheckpointInterval,
        validation_tokens: Tokens,
    ) -> None:
        self._directory = directory
        self._record = record
        self._tokenizer = tokenizer
        self._trainer = trainer
        self._interval = interval
        self._prompts: list[TokenIds] = []
        self._examples: list[Row] = []
        if validation_tokens.frames is None:
            self._prompts = choose_prompts(tokenizer, validation_tokens)
        else:
            documents = validation_tokens.signal_documents
            self._examples = [documents.row(number) for number in range(min(_EXAMPLES, len(documents)))]
        self._saved_step = self._recorded_step = trainer.progress.step
        self._saved_at = time.monotonic()

    def events(self, stop_requested: Callable[[], bool]) -> Iterator[Event]:
        """Yields the trainer's events, `Validated` once its checkpoint is committed, then the end of the run."""
        try:
            yield from self._recorded_events(stop_requested)
        except ValidationStoppedError:  # the resumed run begins with that validation
            self._record_steps()
            self._save(None)
            yield RunInterrupted(self._directory, self._trainer.progress.step)

    def _recorded_events(self, stop_requested: Callable[[], bool]) -> Iterator[Event]:
        progress = self._trainer.progress
        for event in self._trainer.run():
            self._record_steps()
            match event:
                case Validated():
                    event = dataclasses.replace(event, samples=self._generate_samples())
                    # History before checkpoint: resuming removes a surplus line but cannot restore a missing one.
                    record_event(self._directory, self._thin_samples(event))
                    self._save(event)
                case Replanned():
                    self._record_plan()
                    record_event(self._directory, event)
                case WaitingForNgrams() if stop_requested():
                    self._save(None)
                    yield RunInterrupted(self._directory, progress.step)
                    return
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
        if self._saved_step == progress.step and validated is None:
            return  # with a validation, it replaces that of a run that was stopped before
        progress.seconds = time.monotonic() - trainer.started
        config, tensors = self._model()
        bundle = ModelBundle(
            config=config,
            tokenizer=self._tokenizer,
            parameters=tensors,
            step=progress.step,
            validation_loss=validated.validation_loss if validated else None,
            network_loss=validated.network_loss if validated else None,
            sampling=GENERATION_DEFAULTS if config.media is None else SIGNAL_DEFAULTS,
            is_chat=self._record.is_chat,
        )
        state = TrainingState(trainer.training_tensors(), to_dict(progress))
        save_run_checkpoint(self._directory, bundle, state)
        self._saved_step, self._saved_at = progress.step, time.monotonic()
        prune_checkpoints(self._directory)

    def _model(self) -> tuple[ModelConfig, dict[str, np.ndarray]]:
        """The configuration and all tensors of the present model, with the n-gram tables once they are reported."""
        trainer = self._trainer
        if trainer.ngrams is None or not trainer.ngrams.is_reported:
            return trainer.model, trainer.model_tensors()
        tables = trainer.ngrams.tables
        model = dataclasses.replace(trainer.model, ngrams=tables.ngrams, exponents=trainer.progress.exponents)
        return model, trainer.model_tensors() | tables.tensors

    def _record_steps(self) -> None:
        """Records the steps of the last TensorFlow call, once."""
        trainer, step = self._trainer, self._recorded_step
        if trainer.progress.step > step:
            self._recorded_step = trainer.progress.step
            new = [each for each in trainer.last_steps if each.step > step]
            record_steps(self._directory, new, time.monotonic() - trainer.started)

    def _record_plan(self) -> None:
        """Writes the corrected plan to `run.json`."""
        replans = tuple(sorted(self._trainer.replans.items()))
        if replans != self._record.training.replans:
            training = dataclasses.replace(self._record.training, replans=replans)
            self._record = dataclasses.replace(self._record, training=training)
            write_record(self._directory, self._record)

    def _generate_samples(self) -> tuple[Sample, ...]:
        """Continues each prompt by the NumPy runtime, with the same random seed at each validation."""
        unknown = self._tokenizer.unknown_token
        unknown_id = unknown.token_id if unknown else None
        if self._examples:
            return self._answer_examples(unknown_id)
        model = build_language_model(*self._model(), unknown_token=unknown_id)
        samples: list[Sample] = []
        for prompt, length in zip(self._prompts, SAMPLE_LENGTHS, strict=False):
            random_seed = self._record.training.random_seed
            settings = SamplingConfig(length=length, random_seed=random_seed, **GENERATION_DEFAULTS)
            try:
                ids = list(takewhile(self._is_text, generate(model, prompt, settings)))
            except DataError:  # the weights are not finite: saving them reports it
                return ()
            samples.append(Sample(self._tokenizer.decode(prompt), self._tokenizer.decode(ids)))
        return tuple(samples)

    def _answer_examples(self, unknown_id: int | None) -> tuple[Sample, ...]:
        """What the model says of signals of the validation text, each after what it should say."""
        tokenizer, end = self._tokenizer, self._tokenizer.end_of_text
        assert end is not None
        texts = [(row.ids[: np.argmax(row.is_target)], row.frames) for row in self._examples]
        frames, prompts = collect_frames(texts, first_frame_id(tokenizer.vocabulary_size))
        model = build_language_model(*self._model(), unknown_token=unknown_id, frames=frames)
        try:
            answers = complete_greedily(model, prompts, end, SAMPLE_LENGTHS[0])
        except DataError:  # as for other samples
            return ()
        references = [tokenizer.decode(row.ids[row.is_target]) for row in self._examples]
        return tuple(
            Sample(f"[{reference}] ", tokenizer.decode(answer))
            for reference, answer in zip(references, answers, strict=True)
        )

    def _is_text(self, token_id: int) -> bool:
        return token_id != self._tokenizer.end_of_text

    def _thin_samples(self, event: Validated) -> Validated:
        """The event for `history.jsonl`, without its samples unless these are recorded."""
        validation = -(-event.step // self._record.training.validation_interval)
        is_kept = self._trainer.is_finished or is_recorded(validation)
        return event if is_kept else dataclasses.replace(event, samples=())


def choose_prompts(tokenizer: Tokenizer, validation_tokens: Tokens) -> list[TokenIds]:
    """The prompts of the samples, (n,) token ids each, n >= 1: the start of a text, and two of the validation text.

    Of plain text, a prompt is a few words; of documents, the prompt of one of them, or else its first tokens.
    """
    start = start_of_text(tokenizer)
    prompts = [start if len(start) else np.zeros(1, tokenizer.token_dtype)]
    for third in (1, 2):
        first = third * len(validation_tokens) // 3
        ids = validation_tokens.ids[first : first + 2 * _MAX_PROMPT_TOKENS]
        if validation_tokens.loss_mask is None:
            prompts.append(_first_words(tokenizer, ids))
        else:
            mask = validation_tokens.loss_mask[first : first + 2 * _MAX_PROMPT_TOKENS]
            prompts.append(_first_prompt(tokenizer, ids, mask))
    return [prompt[:_MAX_PROMPT_TOKENS] for prompt in prompts if len(prompt)]


def _first_words(tokenizer: Tokenizer, ids: TokenIds) -> TokenIds:
    """The tokens of the first whole words of a text, or of its first characters if it has no spaces."""
    text = tokenizer.decode(ids).strip("\ufffd")  # parts of characters at its ends
    words = _WORDS.search(text)
    return tokenizer.encode(words[1] if words else text[:_PROMPT_CHARACTERS], Counter())


def _first_prompt(tokenizer: Tokenizer, ids: TokenIds, mask: np.ndarray) -> TokenIds:
    """The end-of-text token before the first document that begins in `ids`, and its prompt; empty if there is none."""
    starts = np.flatnonzero(ids[:-1] == tokenizer.end_of_text)
    if not len(starts):
        return ids[:0]
    start = starts[0]
    length = int(np.argmax(mask[start + 1 :])) or _PROMPT_CHARACTERS  # of the tokens that are not targets
    return ids[start : start + 1 + length]


def run_finished(directory: Path, record: RunRecord, progress: Progress) -> RunFinished:
    """The last event of a finished run."""
    best = sort_by_loss(list_checkpoints(directory))[0]
    tokens_per_step = record.training.tokens_per_step if record.model.has_network else record.training_tokens
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
        validation_targets=record.corpus.validation_targets,
        workers=record.workers,
    )
