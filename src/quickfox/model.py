"""A trained model: generate, evaluate, score and export, with text as input and output.

Parameters are named as the options of the command line. Nothing is printed. Only an export to Keras imports TensorFlow.
"""

import secrets
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from quickfox.checkpoints.checkpoint import ModelBundle, load_model
from quickfox.checkpoints.run_directory import find_model
from quickfox.config.media import MediaConfig
from quickfox.config.sampling import SamplingConfig
from quickfox.config.schema import exclusive_error, from_dict, to_dict
from quickfox.errors import DataError
from quickfox.generation.completion import TextFilter, bias_by_token_id, complete
from quickfox.generation.prompt import Prompt, Unknown, encode_prompt, read_input
from quickfox.generation.stopping import Completion, Token
from quickfox.models.inputs import Frames
from quickfox.models.language_model import LanguageModel
from quickfox.models.registry import build_language_model

if TYPE_CHECKING:  # imported on use: sampling, which starts often, does without
    from quickfox.evaluation.memorization import CopyIndex
    from quickfox.evaluation.perplexity import Evaluation
    from quickfox.evaluation.scoring import Score
    from quickfox.export.registry import ExportFormat
    from quickfox.media.signals import Decoded, SignalInput
    from quickfox.text.corpus import Corpus
    from quickfox.text.documents import Document

RANDOM_SEED_BITS = 32
"""Bits of a random seed that is not given; few enough to type it again."""


@dataclass(frozen=True)
class Model:
    """A trained model in memory, returned by `load` and `train`.

    Attributes:
        path: its model directory.
        bundle: configuration, tokenizer, parameters and metadata.
        threads: processor threads that sample a batch of texts, >= 1; if more than one, NumPy should use one thread.
    """

    path: Path
    bundle: ModelBundle
    threads: int = 1

    def __repr__(self) -> str:
        return f"quickfox.load({str(self.path)!r})"

    @property
    def validation_loss(self) -> float | None:
        """Nats per token on the validation text; None: there was none."""
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
        audio: "SignalInput | None" = None,
        image: "SignalInput | None" = None,
        **options: Any,
    ) -> str | list[str]:
        """Sample a text that begins with `seed`; with `num_samples`, a list of such texts.

        After a signal, the texts are what the model says of it, without the seed.

        Args:
            seed: the text to continue; after a signal, a question about it.
            audio: for a model of sound: a file, or (samples, rate); see `media.signals.decode_input`.
            image: for a model of pictures: a file, or pixels.
            num_samples: number of texts, >= 1.
            echo: whether the texts include the seed.
            unknown: treatment of characters that the model does not know; a changed seed causes a warning.
            options: fields of SamplingConfig: `length` (maximum number of new tokens, default 500), `temperature` (0 is
                greedy), `top_k`, `top_p`, `stop`, `random_seed` and others; None: the default.

        Raises:
            DataError: `unknown` is "error", and the seed has characters that the model does not know.
            UsageError: an option is outside its range, or `unknown` is another word.
        """
        config = self.sampling_config(num_samples=num_samples, **options)
        prompt = self.read_prompt(seed, unknown, read_input(self.media, audio, image))
        if prompt.warning:
            warnings.warn(prompt.warning, stacklevel=2)
        head = prompt.text if echo and prompt.frames is None else ""
        texts = [head + event.text for event in self.complete(prompt, config) if isinstance(event, Completion)]
        return texts[0] if num_samples is None else texts

    def evaluate(self, text: str | Iterable[str], unknown: Counter[str] | None = None) -> "Evaluation":
        """How well the model predicts a text: nats per token, perplexity, bits per character and per byte.

        Args:
            text: the text, as a string or in chunks.
            unknown: if given, characters that the model does not know are counted here. They are left out if the
                model has no unknown token.

        Raises:
            NoInputError: the text is empty.
            DataError: no token can be predicted; or a character is unknown, and `unknown` is not given.
        """
        from quickfox.data.encoding import encode_chunks
        from quickfox.evaluation.perplexity import evaluate

        chunks = encode_chunks([text] if isinstance(text, str) else text, self.bundle.tokenizer, unknown)
        return evaluate(self.language_model, self.bundle.tokenizer, chunks, unknown)

    def evaluate_corpus(self, corpus: "Corpus", unknown: Counter[str] | None = None) -> "Evaluation":
        """`evaluate` for a corpus; of prompts with completions, only the completions are predicted.

        Raises:
            QuickfoxError: as `evaluate`, or the corpus cannot be read.
        """
        from quickfox.data.encoding import encode_corpus_chunks
        from quickfox.evaluation.perplexity import evaluate

        if self.media is not None and corpus.has_documents:
            return self.evaluate_documents(corpus.iter_documents(), unknown)
        chunks = encode_corpus_chunks(corpus, self.bundle.tokenizer, unknown)
        return evaluate(self.language_model, self.bundle.tokenizer, chunks, unknown)

    def evaluate_documents(self, documents: "Iterable[Document]", unknown: Counter[str] | None = None) -> "Evaluation":
        """`evaluate` for documents with signals, each of which is read on its own."""
        from quickfox.data.encoding import encode_with_signals
        from quickfox.evaluation.perplexity import evaluate
        from quickfox.evaluation.signals import SignalReader

        chunks = encode_with_signals(documents, self.bundle.tokenizer, unknown, self.media)
        reader = None if self.media is None else SignalReader(self.media, self.bind)
        return evaluate(self.language_model, self.bundle.tokenizer, chunks, unknown, reader)

    def score(self, texts: Sequence[str], unknown: Counter[str] | None = None, *, threads: int = 1) -> "list[Score]":
        """The surprisal of each character of each text: see `quickfox.evaluation.scoring`.

        Args:
            texts: lines without their line ends, or any other texts; scored independently of each other.
            unknown: as for `evaluate`.
            threads: number of batches processed at the same time, >= 1; if more than one, NumPy should use one thread.

        Raises:
            DataError: a character is unknown, and `unknown` is not given.
        """
        from quickfox.evaluation.scoring import score

        return score(self.language_model, self.bundle.tokenizer, texts, unknown, threads)

    def score_documents(
        self, documents: "Sequence[Document]", unknown: Counter[str] | None = None, *, threads: int = 1
    ) -> "list[Score]":
        """`score` for the completions of documents with signals, each after its signal and prompt."""
        from quickfox.evaluation.completions import score_completions

        if self.media is None:
            raise DataError("the documents have signals, and the model reads text only")
        return score_completions(self.bind, self.bundle.tokenizer, documents, unknown, threads, self.media)

    def export(self, directory: str | PathLike[str], export_format: "ExportFormat") -> None:
        """Write the network as a new directory in a format of another program; see docs/export.md.

        The n-gram tables of the model, which no format has a place for, are left out.

        Args:
            directory: must not exist, or be an empty directory.
            export_format: "huggingface", "gguf" or "keras".

        Raises:
            UsageError: the format is unknown, or does not support this model; or it has no network.
            UnavailableError: a required library is not installed.
            CannotCreateError, StorageError: the directory is not empty, or writing failed.
        """
        from quickfox.export.registry import export

        export(self.bundle, export_format, Path(fspath(directory)))

    def sampling_config(self, **options: Any) -> SamplingConfig:
        """The sampling configuration of these options.

        Options that are missing or None have the values saved with the model, else the defaults; the random seed is
        chosen at random.

        Raises:
            UsageError: an option is outside its range, or a text of `logit_bias` is not one token.
        """
        given = {name: value for name, value in options.items() if value is not None}
        defaults = {"random_seed": secrets.randbits(RANDOM_SEED_BITS), **self.bundle.sampling}
        config = SamplingConfig(**{**defaults, **given})
        bias_by_token_id(config, self.bundle.tokenizer)
        return config

    def override_config(self, config: SamplingConfig, options: Mapping[str, Any], where: str) -> SamplingConfig:
        """`config` with the values of `options`, which were read from JSON at `where`.

        Raises:
            DataError: an option is unknown, has a value of another type or is outside its range.
        """
        return from_dict(SamplingConfig, to_dict(config) | dict(options), where)

    @property
    def media(self) -> MediaConfig | None:
        """How the model reads signals; None: it reads text only."""
        return self.bundle.config.media

    def read_prompt(
        self, seed: str | Sequence[str], unknown: Unknown = "fold", signal: "Decoded | None" = None
    ) -> Prompt:
        """Encode a seed for this model.

        Args:
            seed: the text to continue, or its parts, over whose borders no token extends.
            unknown: treatment of characters that the model does not know.
            signal: before the seed, of the kind that the model reads; None: there is none.

        Raises:
            DataError: `unknown` is "error", and the seed has characters that the model does not know.
            UsageError: `unknown` is another word.
        """
        return encode_prompt(self.bundle.tokenizer, seed, unknown, self.media, signal)

    def complete(
        self,
        prompt: Prompt,
        config: SamplingConfig,
        *,
        samples: Sequence[int] | None = None,
        copy_index: "CopyIndex | None" = None,
    ) -> Iterator[Token | Completion]:
        """Continue a prompt: see `completion.complete`; `copy_index` bans longer copies, not with a beam search."""
        if config.num_beams > 1 and copy_index is not None:
            raise exclusive_error("num_beams", "max_copy", "beam search does not sample")
        is_banned = None if copy_index is None else _copy_filter(prompt.text, copy_index)
        model, tokenizer = self.bind(prompt.frames), self.bundle.tokenizer
        return complete(model, tokenizer, prompt.token_ids, config, samples=samples, is_banned=is_banned)

    def stream(self, prompt: Prompt, config: SamplingConfig, sample: int = 0) -> Iterator[str]:
        """The continuation of a prompt, token by token as it is sampled; `sample` is its number within the request."""
        for event in self.complete(prompt, config, samples=[sample]):
            if isinstance(event, Token):
                yield event.text

    @cached_property
    def language_model(self) -> LanguageModel:
        """The language model in NumPy, built on first use."""
        return self._build()

    def bind(self, frames: Frames | None) -> LanguageModel:
        """The language model that reads these frames; None: `language_model`."""
        return self.language_model if frames is None else self._build(frames)

    def _build(self, frames: Frames | None = None) -> LanguageModel:
        unknown = self.bundle.tokenizer.unknown_token
        unknown_id = unknown.token_id if unknown else None
        return build_language_model(self.bundle.config, self.bundle.parameters, self.threads, unknown_id, frames)


def load(path: str | PathLike[str]) -> Model:
    """Load the model at `path`: a run (its best checkpoint), a checkpoint or a model directory.

    Several NumPy threads slow down the small matrix products of sampling; a program that mostly samples should set the
    environment variable OPENBLAS_NUM_THREADS to 1 before NumPy is imported, as `llm generate` does.

    Raises:
        NoInputError: there is no such file or directory.
        DataError: it is not a model, or damaged.
        StorageError: reading failed.
    """
    directory, _, warning = find_model(fspath(path), {}, Path())
    if warning:
        warnings.warn(warning, stacklevel=2)
    return load_directory(directory)


def load_directory(directory: Path) -> Model:
    """Load the model in exactly this model directory; raises as `load`."""
    return Model(directory, load_model(directory))


def _copy_filter(prompt: str, index: "CopyIndex") -> TextFilter:
    """Bans tokens with which the prompt and its continuation would contain a copy that is too long."""
    context = prompt[max(0, len(prompt) - index.max_copy) :]
    return lambda last, token_text: bool(token_text) and index.would_copy(context + last(index.max_copy), token_text)
