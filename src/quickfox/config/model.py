"""Configuration of a model: with the weights, it determines the function the model computes."""

import reprlib
from dataclasses import dataclass
from typing import Literal

from quickfox.config.media import AudioConfig, ImageConfig, MediaConfig, num_media_inputs
from quickfox.config.schema import check_settings, setting
from quickfox.errors import UsageError

Architecture = Literal["lstm", "gru", "rnn", "attention-rnn", "transformer", "ngram"]
TokenizerKind = Literal["char", "byte", "word", "bpe"]

ATTENTION_ARCHITECTURES: tuple[Architecture, ...] = ("attention-rnn", "transformer")

MAX_VOCABULARY_SIZE = 2**24
MAX_DIM = 2**16
MAX_LAYERS = 64
MAX_CONTEXT = 2**16
MAX_NGRAM_ORDER = 16
MAX_NGRAM_COUNT = 2**31 - 1
MAX_EXPONENT = 1.5
"""Upper bounds of the settings of a model, which also limit what a damaged file can allocate."""
DEFAULT_EXPONENTS = 0.5, 0.5


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The settings that determine the tensors of a model and the function they parametrize.

    Attributes:
        architecture: the kind of network; ngram: no network, an n-gram model alone.
        vocabulary_size: number of distinct tokens.
        embedding_dim: embedding dimension; for a transformer, equal to `hidden_dim`; 0 without a network.
        hidden_dim: units per layer; 0 without a network.
        num_layers: number of layers, for an attention-rnn of the encoder and again of the decoder; 0 without a network.
        num_heads: attention heads per layer, which split `hidden_dim` equally; 1 without attention.
        context: the largest number of positions a token attends to, itself included; None without attention.
        tied_embeddings: whether a transformer's output layer is its transposed embedding.
        ngrams: number of n-grams of each order in the n-gram tables, from order 1 (equal to `vocabulary_size`) on;
            empty: no tables.
        ngram_gate: order of the n-gram tables that the network's output layer reads, the length of `ngrams` unless
            there are no tables yet; 0: the network does not read them.
        exponents: of the network and of the n-gram model in their mixture, before the first token of a text (see
            `models/mixture.py`).
        exponents_adapt: whether the tokens of a text change its exponents.
        audio, image: how the sound or the pictures in prompts are read; None: prompts are text only.

    Raises:
        UsageError: a value is outside its range, or does not fit the architecture.
    """

    architecture: Architecture = "lstm"
    vocabulary_size: int = setting(bounds=(1, MAX_VOCABULARY_SIZE))
    embedding_dim: int = setting(bounds=(0, MAX_DIM))
    hidden_dim: int = setting(bounds=(0, MAX_DIM))
    num_layers: int = setting(default=1, bounds=(0, MAX_LAYERS))
    num_heads: int = setting(default=1, bounds=(1, MAX_DIM), added_later=True)
    context: int | None = setting(default=None, bounds=(1, MAX_CONTEXT), added_later=True)
    tied_embeddings: bool = setting(default=False, added_later=True)
    ngrams: tuple[int, ...] = setting(default=(), added_later=True)
    ngram_gate: int = setting(default=0, bounds=(0, MAX_NGRAM_ORDER), added_later=True)
    exponents: tuple[float, float] = setting(default=DEFAULT_EXPONENTS, added_later=True)
    exponents_adapt: bool = setting(default=True, added_later=True)
    audio: AudioConfig | None = setting(default=None, added_later=True, omitted_by_default=True)
    image: ImageConfig | None = setting(default=None, added_later=True, omitted_by_default=True)

    @property
    def has_network(self) -> bool:
        """Whether the model has a network; an n-gram model alone has none."""
        return self.architecture != "ngram"

    @property
    def media(self) -> MediaConfig | None:
        """How the signals in prompts are read; None: prompts are text only."""
        return self.audio or self.image

    @property
    def num_inputs(self) -> int:
        """Number of input ids: the tokens, then those of signals; only tokens are outputs."""
        return self.vocabulary_size + num_media_inputs(self.media)

    def __post_init__(self) -> None:
        check_settings(self)
        self._check_sizes()
        self._check_ngrams()
        self._check_ngram_gate()
        for exponent in self.exponents:
            if not 0 <= exponent <= MAX_EXPONENT:
                raise UsageError(
                    f"exponents must be numbers from 0 to {MAX_EXPONENT}, not {reprlib.repr(exponent)}", "exponents"
                )
        self._check_media()
        if self.architecture in ATTENTION_ARCHITECTURES:
            self._check_attention()
        elif self.num_heads != 1:
            allowed = " and ".join(ATTENTION_ARCHITECTURES)
            raise UsageError(f"num_heads is for {allowed}, not for {self.architecture}", "num_heads")
        elif self.context is not None:
            raise UsageError(f"context must be None for {self.architecture}, which has no attention", "context")
        if self.tied_embeddings and self.architecture != "transformer":
            raise UsageError(f"tied_embeddings is for transformer, not for {self.architecture}", "tied_embeddings")

    def _check_sizes(self) -> None:
        for name in ("embedding_dim", "hidden_dim", "num_layers"):
            value = getattr(self, name)
            if self.has_network and value < 1:
                raise UsageError(f"{name} must be at least 1, not {value}", name)
            if not self.has_network and value != 0:
                raise UsageError(f"{name} must be 0 for {self.architecture}, which has no network, not {value}", name)

    def _check_ngrams(self) -> None:
        if len(self.ngrams) > MAX_NGRAM_ORDER:
            raise UsageError(
                f"ngrams must have at most {MAX_NGRAM_ORDER} numbers, one for each order, not {len(self.ngrams)}",
                "ngrams",
            )
        if self.ngrams and self.ngrams[0] != self.vocabulary_size:
            raise UsageError(
                f"ngrams must begin with vocabulary_size {self.vocabulary_size}, not {reprlib.repr(self.ngrams[0])}",
                "ngrams",
            )
        for count in self.ngrams:
            if not 0 <= count <= MAX_NGRAM_COUNT:
                raise UsageError(
                    f"ngrams must be numbers from 0 to {MAX_NGRAM_COUNT}, not {reprlib.repr(count)}", "ngrams"
                )

    def _check_ngram_gate(self) -> None:
        if self.ngram_gate and not self.has_network:
            raise UsageError(
                f"ngram_gate must be 0 for {self.architecture}, which has no network, not {self.ngram_gate}",
                "ngram_gate",
            )
        if self.ngrams and self.ngram_gate not in (0, len(self.ngrams)):
            raise UsageError(
                f"ngram_gate must be 0 or {len(self.ngrams)}, the order of ngrams, not {self.ngram_gate}", "ngram_gate"
            )

    def _check_media(self) -> None:
        if self.media is None:
            return
        if self.audio and self.image:
            raise UsageError("audio and image exclude each other: a model reads one kind of signal", "audio", "image")
        if not self.has_network or self.ngrams or self.ngram_gate:
            raise UsageError(f"{self.media.kind} needs a network without n-grams", self.media.kind)

    def _check_attention(self) -> None:
        if self.context is None:
            raise UsageError(f"context is missing: {self.architecture} needs a number of positions", "context")
        if self.hidden_dim % self.num_heads:
            raise UsageError(
                f"num_heads must divide hidden_dim {self.hidden_dim}, and {self.num_heads} does not",
                "num_heads",
                "hidden_dim",
            )
        if self.architecture == "transformer":
            self._check_transformer()

    def _check_transformer(self) -> None:
        if self.embedding_dim != self.hidden_dim:
            raise UsageError(
                f"embedding_dim of a transformer must equal its hidden_dim {self.hidden_dim}, not {self.embedding_dim}",
                "embedding_dim",
                "hidden_dim",
            )
        if self.hidden_dim // self.num_heads % 2:
            raise UsageError(
                f"hidden_dim per head of a transformer must be even, not {self.hidden_dim} / {self.num_heads}",
                "hidden_dim",
            )


def ngram_config(vocabulary_size: int, ngrams: tuple[int, ...] = ()) -> ModelConfig:
    """The configuration of an n-gram model without a network."""
    return ModelConfig(
        architecture="ngram",
        vocabulary_size=vocabulary_size,
        embedding_dim=0,
        hidden_dim=0,
        num_layers=0,
        ngrams=ngrams,
    )
