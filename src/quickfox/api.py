"""Quickfox from Python, and the core that the command line calls: the two journeys with text at both ends.

    text -> model    train, iter_training
    model -> text    load, Model

The names are those of the command line's options. Nothing here prints. TensorFlow is imported by training only.
"""

import glob
import itertools
import secrets
import time
import warnings
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from os import PathLike, fspath
from pathlib import Path
from typing import Any, overload

from quickfox.checkpoint import ModelBundle, load_model
from quickfox.config import SamplingConfig, TrainingRequest
from quickfox.evaluation import Evaluation, evaluate
from quickfox.models.language_model import LanguageModel, build_language_model
from quickfox.runs import find_model
from quickfox.sampling.generation import generate
from quickfox.scoring import Score, score
from quickfox.text.corpus import STANDARD_INPUT, open_corpus
from quickfox.text.vocabulary import describe_characters
from quickfox.training.events import Event, RunFinished, Surroundings

DRAWN_SEED_BITS = 32
"""A random seed that nobody chose is below 2**32: enough for all, and short enough to type again."""


@dataclass(frozen=True)
class Prompt:
    """A text to continue, as a model sees it.

    Attributes:
        text: the seed, less the characters that the model does not know.
        token_ids: what the model reads first; for an empty text a newline, if the model knows it.
        unknown: the characters that were left out, counted.
    """

    text: str
    token_ids: list[int]
    unknown: Counter[str]


@dataclass(frozen=True)
class Model:
    """A trained model, in memory; made by `load` and `train`."""

    path: Path
    bundle: ModelBundle

    def __repr__(self) -> str:
        return f"quickfox.load({str(self.path)!r})"

    @property
    def validation_loss(self) -> float | None:
        """Nats per token on the held-out text it was chosen by; None: none was held out."""
        return self.bundle.validation_loss

    @overload
    def generate(self, seed: str = "", *, num_samples: None = None, **options: Any) -> str: ...
    @overload
    def generate(self, seed: str = "", *, num_samples: int, **options: Any) -> list[str]: ...
    def generate(
        self, seed: str = "", *, num_samples: int | None = None, echo: bool = True, strict: bool = False, **options: Any
    ) -> str | list[str]:
        """A text that begins with `seed` and goes on as the model would; with `num_samples`, a list of such texts.

        Args:
            seed: the text to continue.
            num_samples: how many texts to draw, >= 1.
            echo: whether the texts begin with the seed, or leave it out.
            strict: refuse characters that the model does not know, instead of leaving them out with a warning.
            options: `length` (new tokens, default 500), `temperature` (0: always the likeliest), `top_k` (draw among
                the k likeliest only), `random_seed`; see SamplingConfig. None is as good as not given.

        Raises:
            DataError: `strict`, and the seed has characters that the model does not know.
            UsageError: an option is out of its range.
        """
        config = self.sampling_config(num_samples=num_samples, **options)
        prompt = self.read_prompt(seed, strict=strict)
        if prompt.unknown:
            warnings.warn(describe_left_out(prompt.unknown), stacklevel=2)
        head = prompt.text if echo else ""
        texts = [head + "".join(self.stream(prompt, config, sample)) for sample in range(config.num_samples)]
        return texts[0] if num_samples is None else texts

    def evaluate(self, text: str | Iterable[str], unknown: Counter[str] | None = None) -> Evaluation:
        """How well the model predicts a text: nats per token, perplexity, bits per character and per byte.

        Args:
            text: the text, whole or in pieces.
            unknown: if given, characters that the model does not know are left out and counted here.

        Raises:
            NoInputError: the text is empty.
            DataError: fewer than two characters are known; or one is unknown, and `unknown` is not given.
        """
        chunks = [text] if isinstance(text, str) else text
        return evaluate(self.language_model, self.bundle.tokenizer, chunks, unknown)

    def score(self, texts: Sequence[str], unknown: Counter[str] | None = None, *, threads: int = 1) -> list[Score]:
        """How surprising each text is to the model, by itself, character by character: see quickfox.scoring.

        Args:
            texts: lines without their ends, or any other texts.
            unknown: as for `evaluate`.
            threads: how many to use, besides those that NumPy has itself.

        Raises:
            DataError: a character is unknown, and `unknown` is not given.
        """
        return score(self.language_model, self.bundle.tokenizer, texts, unknown, threads)

    def sampling_config(self, **options: Any) -> SamplingConfig:
        """The options, where they are None or missing the model's own, else the defaults; a random seed is drawn.

        Raises:
            UsageError: an option is out of its range.
        """
        chosen = {name: value for name, value in options.items() if value is not None}
        return SamplingConfig(**{"random_seed": secrets.randbits(DRAWN_SEED_BITS), **self.bundle.sampling, **chosen})

    def read_prompt(self, seed: str, *, strict: bool = False) -> Prompt:
        """The seed as this model sees it.

        Raises:
            DataError: `strict`, and the seed has characters that the model does not know.
        """
        tokenizer = self.bundle.tokenizer
        unknown: Counter[str] = Counter()
        token_ids = tokenizer.encode(seed, None if strict else unknown).tolist()
        start = token_ids or tokenizer.encode("\n", Counter()).tolist()
        return Prompt(tokenizer.decode(token_ids), start, unknown)

    def stream(self, prompt: Prompt, config: SamplingConfig, sample: int = 0) -> Iterator[str]:
        """The continuation of the prompt, piece by piece as it is drawn; `sample` counts the texts of one request."""
        for token_id in generate(self.language_model, prompt.token_ids, config, sample):
            yield self.bundle.tokenizer.decode([token_id])

    @cached_property
    def language_model(self) -> LanguageModel:
        """The network, ready to run in NumPy."""
        return build_language_model(self.bundle.config, self.bundle.parameters)


def load(path: str | PathLike[str]) -> Model:
    """The model in `path`: a run (its best checkpoint), a checkpoint or a bare model directory.

    NumPy's own threads slow the small matrix products of sampling down; a program that mostly samples should set
    the environment variable OPENBLAS_NUM_THREADS to 1 before NumPy is imported, as `llm generate` does.

    Raises:
        NoInputError: there is nothing there.
        DataError: what is there is no model, or damaged.
        StorageError: reading failed.
    """
    directory, note = find_model(fspath(path), {}, Path())
    if note:
        warnings.warn(note, stacklevel=2)
    return load_directory(directory)


def load_directory(directory: Path) -> Model:
    """The model in exactly this model directory; raises what `load` does."""
    return Model(directory, load_model(directory))


def train(
    sources: str | PathLike[str] | Sequence[str | PathLike[str]],
    *,
    output: str | PathLike[str] | None = None,
    vocab: str | PathLike[str] | None = None,
    on_event: Callable[[Event], None] | None = None,
    **options: Any,
) -> Model:
    """Trains a model on your text; returns the best by validation loss.

    Args:
        sources: one or more files, folders or globs.
        output: the folder of the run, new or empty; None: `runs/NAME`.
        vocab: a vocabulary file; None: all characters of the text.
        on_event: called with each event of quickfox.training.events, to watch the run.
        options: the settings of TrainingRequest by name, such as `budget` (seconds), `epochs`, `steps`, `hidden_dim`.

    Raises:
        QuickfoxError: any of its children, with a message for the user.
        TypeError: an option that does not exist.
    """
    names = [fspath(sources)] if isinstance(sources, str | PathLike) else [fspath(source) for source in sources]
    return _last_model(
        iter_training(
            names,
            TrainingRequest(**options),
            output=None if output is None else Path(output),
            vocabulary_path=None if vocab is None else Path(vocab),
            surroundings=Surroundings(notice=_warn, started=time.monotonic()),
        ),
        on_event,
    )


def resume(
    run: str | PathLike[str] | None = None, *, on_event: Callable[[Event], None] | None = None, **options: Any
) -> Model:
    """Goes on with an interrupted run, or extends a finished one; returns the best model by validation loss.

    Args:
        run: its folder; None: the newest under `runs`.
        on_event: as for `train`.
        options: `epochs`, `steps` or `budget` for another length; other settings only as they were.

    Raises:
        QuickfoxError: any of its children, with a message for the user.
        TypeError: an option that does not exist.
    """
    directory = None if run is None else Path(run)
    surroundings = Surroundings(notice=_warn, started=time.monotonic())
    return _last_model(
        iter_resumed_training(directory, TrainingRequest(**options), surroundings=surroundings), on_event
    )


def iter_training(
    sources: Sequence[str],
    request: TrainingRequest,
    *,
    output: Path | None,
    vocabulary_path: Path | None,
    surroundings: Surroundings,
    checkpoint_every: str | None = None,
    repeats: Path | None = None,
) -> Generator[Event]:
    """Trains a model on the corpus of `sources`, telling what happens; see quickfox.training.run.train.

    Closing the generator ends the run in an orderly way, without saving once more.
    """
    from quickfox.training import run  # this and the next are the imports here that lead to TensorFlow

    yield from run.train(
        open_corpus(sources, surroundings.notice),
        request,
        output=output,
        vocabulary_path=vocabulary_path,
        name=run_name(sources[0]),
        surroundings=surroundings,
        checkpoint_every=checkpoint_every,
        repeats=repeats,
    )


def iter_resumed_training(
    run_directory: Path | None,
    request: TrainingRequest,
    *,
    surroundings: Surroundings,
    checkpoint_every: str | None = None,
) -> Generator[Event]:
    """Goes on with a run, telling what happens; see quickfox.training.run.resume."""
    from quickfox.training import run

    yield from run.resume(run_directory, request, surroundings=surroundings, checkpoint_every=checkpoint_every)


def run_name(source: str) -> str:
    """What to call the run of a corpus: the stem of a file, the name of a folder or of that which a glob looks into."""
    if source == STANDARD_INPUT:
        return "stdin"
    path = Path(source)
    if path.is_dir():
        return path.resolve().name
    if glob.has_magic(source) and not path.exists():
        folders = itertools.takewhile(lambda part: not glob.has_magic(part), path.parts)
        return Path(*folders).resolve().name
    return Path(path.name.removesuffix(".gz")).stem


def describe_left_out(unknown: Counter[str]) -> str:
    """The warning that characters were left out because the model does not know them."""
    characters = describe_characters(character for character, _ in unknown.most_common())
    count = unknown.total()
    what = "1 character" if count == 1 else f"{count:,} characters"
    return f"left out {what} that the model does not know: {characters}"


def _last_model(events: Iterable[Event], on_event: Callable[[Event], None] | None) -> Model:
    for event in events:
        if on_event is not None:
            on_event(event)
        if isinstance(event, RunFinished):
            return load_directory(event.checkpoint)
    raise AssertionError("a run ends with RunFinished")


def _warn(message: str) -> None:
    warnings.warn(message, stacklevel=4)
