"""The state from which tokens are sampled, of a mixture and of other models."""

import numpy as np

from quickfox.config.model import ngram_config
from quickfox.models.language_model import TokenExclusion
from quickfox.models.mixture import MixtureLanguageModel, begin_sampling
from quickfox.models.ngram.kneser_ney import estimate_ngrams
from quickfox.models.ngram.model import LEFT_OUT, NgramLanguageModel
from toy_models import random_lstm

VOCABULARY_SIZE = 5
TEXT = np.random.default_rng(0).integers(0, VOCABULARY_SIZE, 400).astype(np.uint8)


def estimated_ngram(order: int) -> NgramLanguageModel:
    estimate = estimate_ngrams(TEXT, VOCABULARY_SIZE, order, 10**9)
    return NgramLanguageModel(ngram_config(VOCABULARY_SIZE, estimate.ngrams), estimate.tensors)


NETWORK = random_lstm(VOCABULARY_SIZE)


def test_a_network_or_ngrams_alone_sample_from_the_state_of_the_prompt() -> None:
    for model in (NETWORK, estimated_ngram(5)):
        state = model.initial_state(2)
        assert begin_sampling(model, state) is state


def test_sampling_from_a_mixture_leaves_out_the_highest_order_of_ngrams() -> None:
    ngram = estimated_ngram(5)
    model = TokenExclusion(MixtureLanguageModel(NETWORK, ngram, VOCABULARY_SIZE), 0)
    _, state = model.forward(TEXT.astype(np.int64)[None, :20], model.initial_state(1))
    (contexts,), (expected,) = begin_sampling(model, state)[-2], state[-2]
    np.testing.assert_array_equal(contexts[:, :-1], expected[:, :-1])
    assert contexts[0, -1] == LEFT_OUT
