"""Chooses the order of the n-gram tables, and the settings of a run of an n-gram model alone.

NumPy is imported by the functions, because the help texts load this module.
"""

import math
import secrets
from typing import TYPE_CHECKING

from quickfox.config.model import Architecture
from quickfox.config.training import MAX_COUNTED_TOKENS, TrainingConfig, TrainingRequest
from quickfox.errors import UsageError

if TYPE_CHECKING:
    from quickfox.data.token_file import TokenSource

ORDER_FACTOR = 2.0
"""Order, as a multiple of ln(tokens) / entropy of a token in nats: the number of tokens that would identify a place in
the text if tokens were independent. Measured on texts of 0.7 to 4 MB (benchmarks/LOG.md)."""

MIN_ORDER, MAX_ORDER = 2, 10

MAX_NGRAMS = 2**21
"""N-grams of each order that are kept: about 20 MB for each order of characters."""

COUNTED_TOKENS_PER_SECOND = 800_000
"""Tokens counted for each second of a time budget, so that the tables are ready in about half of it: a core counts
one to three million tokens a second, and trains the network too (benchmarks/LOG.md)."""

_ENTROPY_TOKENS = 2**22  # the entropy is that of the first tokens

GATE_ARCHITECTURES: tuple[Architecture, ...] = ("lstm", "gru", "rnn", "attention-rnn")
"""Networks that may get an n-gram gate: not the transformer, whose exports would miss what it reads."""

MAX_GATE_VOCABULARY = 512
"""With a larger vocabulary, the distributions of the n-gram model take too large a part of a step."""

MAX_GATE_TOKENS = 2**24
"""Of a longer text, the tables without each block would take too much time and memory."""

GATE_TOKENS_PER_SECOND = 150_000
"""Training tokens for each second of a time budget up to which there is a gate: training waits for the tables without
each block, about 1 microsecond a token, a seventh of the budget. With 270,000, a gate neither lowered nor raised the
loss (benchmarks/LOG.md)."""

MAX_GATE_EPOCHS = 12.0
"""Planned epochs up to which networks have a gate; runs of more were not compared (benchmarks/LOG.md)."""

_NETWORK_SETTINGS = (
    "size",
    "embedding_dim",
    "hidden_dim",
    "num_layers",
    "num_heads",
    "epochs",
    "steps",
    "batch_size",
    "window",
    "learning_rate",
    "dropout",
    "patience",
    "freeze_embeddings",
    "no_augmentation",
    "precision",
)


def choose_ngram_order(request: TrainingRequest, training_tokens: "TokenSource") -> int:
    """The order of the n-gram tables of a run: as requested, or chosen for the text; 0: no tables.

    Raises:
        UsageError: the order exceeds the number of training tokens, or is off for an n-gram model.
    """
    import numpy as np

    if request.ngram == "off":
        if request.architecture == "ngram":
            raise UsageError("an n-gram model cannot be trained with ngram off", "ngram")
        return 0
    if request.ngram == "auto":
        ids = training_tokens[0 : min(len(training_tokens), _ENTROPY_TOKENS)]
        counts = np.bincount(ids)
        shares = counts[counts > 0] / len(ids)
        entropy = -float((shares * np.log(shares)).sum())
        tokens = math.log(max(2, len(training_tokens)))
        return min(max(round(ORDER_FACTOR * tokens / max(entropy, 0.1)), MIN_ORDER), MAX_ORDER, len(training_tokens))
    if request.ngram > len(training_tokens):
        raise UsageError(f"ngram {request.ngram} is more than the {len(training_tokens):,} training tokens", "ngram")
    return int(request.ngram)


def allows_gate(request: TrainingRequest, ngram_order: int, vocabulary_size: int, training_tokens: int) -> bool:
    """Whether a network may get an n-gram gate; `training/planning/auto_config.py` decides by the number of epochs."""
    max_tokens: float = MAX_GATE_TOKENS
    if request.budget is not None:  # the default budget is long enough
        max_tokens = min(max_tokens, GATE_TOKENS_PER_SECOND * request.budget)
    return (
        ngram_order > 0
        and (request.architecture or "lstm") in GATE_ARCHITECTURES
        and vocabulary_size <= MAX_GATE_VOCABULARY
        and training_tokens <= max_tokens
    )


def max_counted_tokens(request: TrainingRequest, earlier_config: TrainingConfig | None, training_tokens: int) -> int:
    """Tokens counted at most, `TrainingConfig.ngram_tokens`: what a budget allows, or those of a repeated run.

    It is the default if the whole text of `training_tokens` tokens is counted, or nothing.
    """
    most = MAX_COUNTED_TOKENS
    if request.budget is not None:
        most = min(most, round(COUNTED_TOKENS_PER_SECOND * request.budget))
    elif earlier_config is not None and request.steps is None and request.epochs is None:
        most = earlier_config.ngram_tokens
    is_limited = most < training_tokens and request.ngram != "off" and request.architecture != "ngram"
    return max(1, most) if is_limited else MAX_COUNTED_TOKENS


def check_ngram_request(request: TrainingRequest) -> None:
    """Raises UsageError if a setting of a request has no meaning for an n-gram model alone."""
    for name in _NETWORK_SETTINGS:
        if getattr(request, name) not in (None, "auto"):
            raise UsageError(f"{name} is for networks, and architecture ngram has none: leave it out", name)


def check_ngram_workers(workers: int) -> None:
    """Raises UsageError if a run of an n-gram model alone has several workers."""
    if workers > 1:
        raise UsageError(f"architecture ngram is for one process, not for {workers} workers", "architecture")


def ngram_training(request: TrainingRequest, ngram_order: int, threads: int) -> TrainingConfig:
    """The settings of a run of an n-gram model alone: one step, which reads the whole text."""
    return TrainingConfig(
        steps=1,
        batch_size=1,
        window=1,
        learning_rate=0.0,
        warmup_steps=0,
        weight_decay=0.0,
        clip_norm=1.0,
        dropout=0.0,
        validation_interval=1,
        patience=None,
        random_seed=secrets.randbits(32) if request.random_seed is None else request.random_seed,
        precision="float32",
        threads=threads,
        ngram_order=ngram_order,
    )
