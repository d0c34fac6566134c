"""Models with random weights of any architecture, with any tokenizer, and a text that all tokenizers can encode."""

from typing import Any

import numpy as np

from quickfox.checkpoints.checkpoint import ModelBundle
from quickfox.config.model import Architecture, ModelConfig, TokenizerKind
from quickfox.models.registry import build_language_model
from quickfox.tokenizers.base import Tokenizer
from quickfox.tokenizers.build import build_tokenizer
from toy_models import random_parameters

TEXT = "The quick brown fox, weiß & schnell,\n\tjumps over  the lazy dog: 'tis 日本語 \\x20 done!\n"

CONTEXT = 48


def tokenizer_for_text(kind: TokenizerKind, *, end_of_text: bool) -> Tokenizer:
    tokenizer = build_tokenizer(kind, [TEXT * 3])
    return tokenizer.with_end_of_text() if end_of_text else tokenizer


def bundle_of(tokenizer: Tokenizer, architecture: Architecture = "transformer", **options: Any) -> ModelBundle:
    """A model with weights large enough for its logits to differ; by default a transformer."""
    if architecture in ("transformer", "attention-rnn"):
        options = {"num_heads": 4, "context": CONTEXT} | options
    config = ModelConfig(
        architecture=architecture,
        vocabulary_size=tokenizer.vocabulary_size,
        embedding_dim=32 if architecture == "transformer" else 12,
        hidden_dim=32,
        num_layers=2,
        **options,
    )
    return ModelBundle(
        config, tokenizer, random_parameters(config, scale=0.3), step=1, validation_loss=None, sampling={}
    )


def quickfox_logits(bundle: ModelBundle, token_ids: np.ndarray) -> np.ndarray:
    """(B, T) token ids from the start of their texts -> (B, T, V) logits."""
    model = build_language_model(bundle.config, bundle.parameters)
    logits, _ = model.forward(token_ids, model.initial_state(len(token_ids)))
    return logits


def quickfox_greedy_ids(bundle: ModelBundle, token_ids: list[int], count: int) -> list[int]:
    """Greedy continuation: the `count` token ids after `token_ids`."""
    ids = list(token_ids)
    for _ in range(count):
        ids.append(int(quickfox_logits(bundle, np.array([ids]))[0, -1].argmax()))
    return ids[len(token_ids) :]
