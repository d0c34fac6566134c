"""A trained model, with text at both ends: what it writes, and what it says of what others wrote.

The names are those of the command line's options. Nothing here prints, and nothing leads to TensorFlow
but an export to Keras.
"""

import secrets
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from os import PathLike, fspath
from pathlib import Path
from typing import Any, Literal, overload

from quickfox.checkpoints.checkpoint import ModelBundle, load_model
from quickfox.checkpoints.run_directory import find_model
from quickfox.config.sampling import SamplingConfig
from quickfox.config.schema import from_dict, to_dict
from quickfox.data.dataset import EncodedChunk, encode_chunks, encode_corpus_chunks
from quickfox.evaluation.memorization import CopyIndex
from quickfox.evaluation.perplexity import Evaluation, evaluate
from quickfox.evaluation.scoring import Score, score
from quickfox.export.registry import ExportFormat, export
from quickfox.generation.completion import TextFilter, complete
from quickfox.generation.stopping import Completion, Token
from quickfox.models.registry import LanguageModel, build_language_model
from quickfox.text.corpus import Corpus
from quickfox.text.transliteration import describe_transliteration, transliterate
from quickfox.text.vocabulary import describe_characters
from quickfox.tokenizers.base import start_of_text

DRAWN_SEED_BITS = 32
"""A random seed that nobody chose is below 2**32: enough for all, and short enough to type again."""

Unknown = Literal["fold", "skip", "error"]
"""What to do with characters of a prompt that the model does not know: write them as others that it does, and leave out
only the rest; leave them all out; refuse the prompt."""


@dataclass(frozen=True)
class Prompt:
    """A text to continue, as a model sees it.

    Attributes:
        text: the seed, less the characters that the model does not know, and with those it knows by another spelling.
        token_ids: what the model reads first: the text, after an end of text if the model knows such a token; else, for
            an empty text, a newline, if the model knows it.
        unknown: the characters that were left out, counted.
        folded: (character or cluster, what was written for it), counted.
    """

    text: str
    token_ids: list[int]
    unknown: Counter[str]
    transliterated: Counter[tuple[str, str]]

    @property
    def warning(self) -> str | None:
        """What was done to the seed, in one line; None: nothing."""
        return describe_changes(self.transliterated, self.unknown)


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
        self,
        seed: str = "",
        *,
        num_samples: int | None = None,
        echo: bool = True,
        unknown: Unknown = "fold",
        **options: Any,
    ) -> str | list[str]:
        """A text that begins with `seed` and goes on as the model would; with `num_samples`, a list of such texts.

        Args:
            seed: the text to continue.
            num_samples: how many texts to draw, >= 1.
            echo: whether the texts begin with the seed, or leave it out.
            unknown: what to do with characters that the model does not know; where the seed is changed, with a warning.
            options: see SamplingConfig: `length` (new tokens, default 500), `temperature` (0: always the likeliest),
                `top_k`, `top_p`, `stop`, `random_seed` and others. None is as good as not given.

        Raises:
            DataError: `unknown` is "error", and the seed has characters that the model does not know.
            UsageError: an option is out of its range.
        """
        config = self.sampling_config(num_samples=num_samples, **options)
        prompt = self.read_prompt(seed, unknown)
        if prompt.warning:
            warnings.warn(prompt.warning, stacklevel=2)
        head = prompt.text if echo else ""
        texts = [head + event.text for event in self.complete(prompt, config) if isinstance(event, Completion)]
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
        unknown_counts: Counter[str] = Counter()
        pieces = encode_chunks(chunks, self.bundle.tokenizer, None if unknown is None else unknown_counts)
        return self._evaluate(pieces, unknown_counts, unknown)

    def evaluate_corpus(self, corpus: Corpus, unknown: Counter[str] | None = None) -> Evaluation:
        """The same for the text of a corpus; of pairs only the completions count.

        Raises:
            QuickfoxError: what `evaluate` raises, or the corpus cannot be read.
        """
        unknown_counts: Counter[str] = Counter()
        pieces = encode_corpus_chunks(corpus, self.bundle.tokenizer, None if unknown is None else unknown_counts)
        return self._evaluate(pieces, unknown_counts, unknown)

    def _evaluate(
        self, pieces: Iterable[EncodedChunk], unknown_counts: Counter[str], unknown: Counter[str] | None
    ) -> Evaluation:
        evaluation = evaluate(self.language_model, self.bundle.tokenizer, pieces, unknown_counts)
        if unknown is not None:
            unknown.update(unknown_counts)
        return evaluation

    def score(self, texts: Sequence[str], unknown: Counter[str] | None = None, *, threads: int = 1) -> list[Score]:
        """How surprising each text is to the model, by itself, character by character: see quickfox.evaluation.scoring.

        Args:
            texts: lines without their ends, or any other texts.
            unknown: as for `evaluate`.
            threads: how many to use, besides those that NumPy has itself.

        Raises:
            DataError: a character is unknown, and `unknown` is not given.
        """
        return score(self.language_model, self.bundle.tokenizer, texts, unknown, threads)

    def export(self, directory: str | PathLike[str], export_format: ExportFormat) -> None:
        """Write the model for another program, as a new folder: "huggingface", "gguf" or "keras"; see docs/export.md.

        Raises:
            UsageError: the format has no place for such a model.
            UnavailableError: a library that is needed is not installed.
            CannotCreateError, StorageError: the folder is not empty, or writing failed.
        """
        export(self.bundle, export_format, Path(fspath(directory)))

    def sampling_config(self, **options: Any) -> SamplingConfig:
        """The options, where they are None or missing the model's own, else the defaults; a random seed is drawn.

        Raises:
            UsageError: an option is out of its range.
        """
        chosen = {name: value for name, value in options.items() if value is not None}
        return SamplingConfig(**{"random_seed": secrets.randbits(DRAWN_SEED_BITS), **self.bundle.sampling, **chosen})

    def overridden(self, config: SamplingConfig, options: Mapping[str, Any], where: str) -> SamplingConfig:
        """The settings with those replaced that `options`, read from JSON at the place `where`, names.

        Raises:
            DataError: an option is unknown, of another type or out of its range.
        """
        return from_dict(SamplingConfig, to_dict(config) | dict(options), where)

    def read_prompt(self, seed: str, unknown: Unknown = "fold") -> Prompt:
        """The seed as this model sees it.

        Raises:
            DataError: `unknown` is "error", and the seed has characters that the model does not know.
        """
        tokenizer = self.bundle.tokenizer
        transliterated: Counter[tuple[str, str]] = Counter()
        unknown_counts: Counter[str] = Counter()
        if unknown == "fold":
            transliteration = transliterate(seed, tokenizer.known_characters)
            seed, transliterated = transliteration.text, transliteration.replaced
        token_ids = tokenizer.encode(seed, None if unknown == "error" else unknown_counts).tolist()
        start = start_of_text(tokenizer).tolist() if not token_ids or tokenizer.end_of_text is not None else []
        return Prompt(tokenizer.decode(token_ids), start + token_ids, unknown_counts, transliterated)

    def complete(
        self,
        prompt: Prompt,
        config: SamplingConfig,
        *,
        samples: Sequence[int] | None = None,
        copy_index: CopyIndex | None = None,
    ) -> Iterator[Token | Completion]:
        """Continue a prompt: see `completion.complete`. With `copy_index`, never copy more than that allows."""
        veto = None if copy_index is None else _no_copying(prompt.text, copy_index)
        return complete(
            self.language_model, self.bundle.tokenizer, prompt.token_ids, config, samples=samples, is_banned=veto
        )

    def stream(self, prompt: Prompt, config: SamplingConfig, sample: int = 0) -> Iterator[str]:
        """The continuation of the prompt, piece by piece as it is drawn; `sample` counts the texts of one request."""
        for event in self.complete(prompt, config, samples=[sample]):
            if isinstance(event, Token):
                yield event.text

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


def describe_changes(transliterated: Counter[tuple[str, str]], unknown: Counter[str]) -> str | None:
    """The warning that characters were written otherwise or left out; None: neither."""
    done = [f"replaced {describe_transliteration(transliterated)}"] if transliterated else []
    if unknown:
        done.append(describe_unknown(unknown))
    return "; ".join(done) or None


def describe_unknown(unknown: Counter[str]) -> str:
    """The warning that characters were left out because the model does not know them."""
    characters = describe_characters(character for character, _ in unknown.most_common())
    count = unknown.total()
    what = "1 character" if count == 1 else f"{count:,} characters"
    return f"left out {what} that the model does not know: {characters}"


def _no_copying(prompt: str, index: CopyIndex) -> TextFilter:
    """The veto on tokens by which the prompt and its continuation would copy too much."""
    start = prompt[max(0, len(prompt) - index.max_copy) :]
    return lambda written, piece: bool(piece) and index.would_copy(start + written, piece)
