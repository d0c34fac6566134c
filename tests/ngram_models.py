"""Models with n-gram tables for tests: mixtures with a network, and n-gram models alone."""

import dataclasses

import numpy as np

from quickfox.checkpoints.checkpoint import ModelBundle
from quickfox.config.model import ngram_config
from quickfox.models.ngram.kneser_ney import NgramEstimate, estimate_ngrams
from quickfox.tokenizers.base import Tokenizer

MAX_NGRAMS = 1000
NETWORK_LOSS, MIXTURE_LOSS, NGRAM_LOSS = 2.75, 1.5, 1.75
"""The recorded losses, which none of these models was measured for."""


def mix_with_ngrams(bundle: ModelBundle, text: str, order: int) -> ModelBundle:
    """The network of `bundle` mixed with the n-gram model of a text."""
    estimate = _estimate(bundle.tokenizer, text, order)
    return dataclasses.replace(
        bundle,
        config=dataclasses.replace(bundle.config, ngrams=estimate.ngrams),
        parameters={**bundle.parameters, **estimate.tensors},
        validation_loss=MIXTURE_LOSS,
        network_loss=NETWORK_LOSS,
    )


def ngram_bundle(tokenizer: Tokenizer, text: str, order: int) -> ModelBundle:
    """The n-gram model of a text alone."""
    estimate = _estimate(tokenizer, text, order)
    config = ngram_config(tokenizer.vocabulary_size, estimate.ngrams)
    return ModelBundle(config, tokenizer, estimate.tensors, step=1, validation_loss=NGRAM_LOSS, sampling={})


def _estimate(tokenizer: Tokenizer, text: str, order: int) -> NgramEstimate:
    ids = np.asarray(tokenizer.encode(text), tokenizer.token_dtype)
    return estimate_ngrams(ids, tokenizer.vocabulary_size, order, MAX_NGRAMS)
