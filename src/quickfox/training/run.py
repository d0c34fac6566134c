"""One training run from corpus to finished model: the run directory, its history, best and last checkpoints.

    run.json  history.jsonl  tokens.bin (while it trains)  checkpoints/step-00001200/

The trainer trains and writes nothing; this room writes and trains nothing.
"""

import dataclasses
import json
import math
import platform
import time
from collections import Counter
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quickfox.checkpoint import ModelBundle, TrainingState, save_checkpoint
from quickfox.config import ModelConfig, SamplingConfig, TrainingRequest, to_dict
from quickfox.durable import append_line, write_file
from quickfox.errors import DataError, NoInputError
from quickfox.models.language_model import build_language_model
from quickfox.models.parameters import parameter_count
from quickfox.runs import RUN_FILE, checkpoint_directory, make_run_directory, new_run_directory, prune_checkpoints
from quickfox.sampling.generation import generate
from quickfox.strict_json import format_json
from quickfox.text.corpus import Corpus
from quickfox.text.token_store import EncodedCorpus, encode_corpus, open_tokens, split_tokens
from quickfox.text.tokenizers import CharacterTokenizer, load_tokenizer
from quickfox.text.vocabulary import build_vocabulary, count_characters, describe_characters
from quickfox.training.events import Event, Replanned, RunFinished, RunStarted, StepsDone, Validated
from quickfox.training.settings import DEFAULT_WINDOW, Plan, choose_settings
from quickfox.training.tensorflow_runtime import available_threads, matmul_speed, preferred_precision, start_tensorflow
from quickfox.version import __version__

if TYPE_CHECKING:
    from quickfox.training.trainer import Trainer

HISTORY_FILE = "history.jsonl"
TOKENS_FILE = "tokens.bin"
SAMPLE_LENGTH = 160  # tokens of the model's own text after each validation
GENERATION_DEFAULTS: dict[str, Any] = {"temperature": 0.8}


def train(
    corpus: Corpus,
    request: TrainingRequest,
    *,
    output: Path | None,
    vocabulary_path: Path | None,
    name: str,
    notice: Callable[[str], None],
    started: float,
) -> Iterator[Event]:
    """Trains a model on `corpus`, telling what happens; every `Validated` event follows a committed checkpoint.

    Args:
        corpus: the text.
        request: the settings asked for.
        output: the run directory; None: `runs/NAME`, numbered when taken.
        vocabulary_path: a vocabulary file to use; None: all characters of the corpus.
        name: of the run, when `output` is None.
        notice: told in one line what the person should know.
        started: when the command started, by `time.monotonic`: a budget counts from there.

    Raises:
        QuickfoxError: any of its children; nothing is created when the input is at fault.
    """
    tokenizer = _prepare_tokenizer(corpus, vocabulary_path, request, notice)
    threads = request.threads or available_threads()
    start_tensorflow(threads)
    directory = _make_directory(output, name)
    tokens_path = directory / TOKENS_FILE
    try:
        encoded = encode_corpus(corpus, tokenizer, tokens_path)
        ids = open_tokens(tokens_path, tokenizer.token_dtype)
        training_ids, validation_ids = split_tokens(ids, request.validation_split)
        precision = preferred_precision() if request.precision == "auto" else request.precision
        plan = choose_settings(
            request,
            vocabulary_size=tokenizer.vocabulary_size,
            training_tokens=len(training_ids),
            threads=threads,
            precision=precision,
            flops=matmul_speed(precision, threads),
            seconds_gone=time.monotonic() - started,
        )
        write_file(directory / RUN_FILE, format_json(_describe_run(plan, corpus, encoded, request)))
        yield RunStarted(
            directory=directory,
            model=plan.model,
            training=plan.training,
            budget_seconds=plan.budget_seconds,
            parameters=parameter_count(plan.model),
            training_tokens=len(training_ids),
            validation_tokens=len(validation_ids),
        )
        from quickfox.training.trainer import Trainer  # needs TensorFlow, which has only now been started

        trainer = Trainer(plan.model, plan.training, training_ids, validation_ids, started, plan.budget_seconds)
        yield from _Recorder(directory, tokenizer, trainer).events()
    finally:
        tokens_path.unlink(missing_ok=True)


def _prepare_tokenizer(
    corpus: Corpus, vocabulary_path: Path | None, request: TrainingRequest, notice: Callable[[str], None]
) -> CharacterTokenizer:
    """The tokenizer for the corpus; checks, before anything is created, that both fit each other and the request."""
    counts = count_characters(corpus.iter_text())
    if vocabulary_path is None:
        tokenizer = CharacterTokenizer(build_vocabulary(counts))
    else:
        tokenizer = load_tokenizer(vocabulary_path)
    vocabulary = tokenizer.vocabulary
    if missing := counts.keys() - set(vocabulary.characters):
        description = describe_characters(sorted(missing))
        if vocabulary.min_count == 1:
            raise DataError(
                f"{vocabulary_path} lacks characters of the corpus: {description}; "
                f"build one with `llm build-vocab`, or leave --vocab out"
            )
        left_out = sum(counts[character] for character in missing)
        notice(f"{left_out:,} characters of the corpus that the vocabulary leaves out as rare: {description}")
    known = counts.total() - sum(counts[character] for character in missing)
    _check_length(known, request)
    return tokenizer


def _check_length(tokens: int, request: TrainingRequest) -> None:
    """A window and its last target must fit into the training share of the text."""
    if tokens == 0:
        raise NoInputError("the corpus is empty")
    window = request.window or DEFAULT_WINDOW
    minimum = math.ceil((window + 1) / (1 - request.validation_split))
    if tokens < minimum:
        raise DataError(
            f"the corpus has {tokens:,} characters, but a window of {window} needs at least {minimum:,}: "
            f"add text, or choose a shorter --window"
        )


def _make_directory(output: Path | None, name: str) -> Path:
    if output is None:
        return new_run_directory(name)
    make_run_directory(output)
    return output


def _describe_run(plan: Plan, corpus: Corpus, encoded: EncodedCorpus, request: TrainingRequest) -> dict[str, Any]:
    """What run.json holds: everything that fixes the run."""
    return {
        "format_version": 1,
        "model": to_dict(plan.model),
        "training": to_dict(plan.training),
        "budget_seconds": plan.budget_seconds,
        "validation_split": request.validation_split,
        "corpus": {
            "files": list(corpus.names),
            "characters": encoded.characters,
            "tokens": encoded.tokens,
            "sha256": encoded.digest,
        },
        "versions": {
            "quickfox": __version__,
            "tensorflow": version("tensorflow"),
            "python": platform.python_version(),
        },
        "machine": platform.machine(),
    }


class _Recorder:
    """Writes down what a trainer does: checkpoints, their pruning, the history; passes its events on."""

    def __init__(self, directory: Path, tokenizer: CharacterTokenizer, trainer: "Trainer") -> None:
        self._directory = directory
        self._tokenizer = tokenizer
        self._trainer = trainer
        self._best: Path | None = None

    def events(self) -> Iterator[Event]:
        """The trainer's events, each `Validated` one after its checkpoint is committed; last, `RunFinished`."""
        last: Validated | None = None
        for event in self._trainer.run():
            if isinstance(event, Validated):
                event = last = self._commit(event)
            if not isinstance(event, StepsDone):
                self._record(event)
            yield event
        assert last is not None, "a run ends with a validation"
        assert self._best is not None
        yield RunFinished(
            run=self._directory,
            checkpoint=self._best,
            epochs=last.epoch,
            steps=last.step,
            tokens=last.tokens,
            tokens_per_second=last.tokens_per_second,
            train_loss=last.train_loss,
            validation_loss=last.validation_loss,
            best_validation_loss=last.best_validation_loss,
            parameters=parameter_count(self._trainer.model),
            stopped_early=last.step < last.total_steps,
        )

    def _commit(self, event: Validated) -> Validated:
        """Saves a checkpoint, prunes the older ones, and draws a sample by the NumPy runtime from what was saved."""
        trainer, path = self._trainer, checkpoint_directory(self._directory, event.step)
        parameters = trainer.model_tensors()
        bundle = ModelBundle(
            trainer.model, self._tokenizer, parameters, event.step, event.validation_loss, GENERATION_DEFAULTS
        )
        state = {"step": event.step, "total_steps": event.total_steps}
        save_checkpoint(path, bundle, TrainingState(trainer.training_tensors(), state))
        if event.is_best:
            self._best = path
        prune_checkpoints(self._directory)
        return dataclasses.replace(event, sample=self._sample(trainer.model, parameters, event.step))

    def _sample(self, model: ModelConfig, parameters: dict[str, Any], step: int) -> str:
        settings = SamplingConfig(length=SAMPLE_LENGTH, random_seed=step, **GENERATION_DEFAULTS)
        prompt = self._tokenizer.encode("\n", unknown=Counter())
        start = prompt if len(prompt) else [step % self._tokenizer.vocabulary_size]
        drawn = generate(build_language_model(model, parameters), start, settings)
        return self._tokenizer.decode(list(drawn))

    def _record(self, event: Validated | Replanned) -> None:
        kind = "validation" if isinstance(event, Validated) else "replan"
        line = {"event": kind, **{k: v for k, v in dataclasses.asdict(event).items() if k != "sample"}}
        append_line(self._directory / HISTORY_FILE, json.dumps(line))
