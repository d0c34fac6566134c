"""Greedy decoding of many prompts gives what sampling at temperature 0 gives for each alone."""

import dataclasses

import numpy as np
import pytest

from quickfox.config.model import Architecture, ModelConfig
from quickfox.config.sampling import SamplingConfig
from quickfox.generation.greedy import BATCH_SIZE, complete_greedily
from quickfox.generation.sampler import generate
from quickfox.models.ngram.kneser_ney import estimate_ngrams
from quickfox.models.registry import build_language_model
from toy_models import FixedModel, random_parameters

VOCABULARY_SIZE = 12
GREEDY = SamplingConfig(random_seed=0, temperature=0, length=30)


@pytest.mark.parametrize("has_ngrams", [False, True])
@pytest.mark.parametrize("architecture", ["lstm", "transformer"])
def test_each_prompt_is_continued_as_alone(architecture: Architecture, has_ngrams: bool) -> None:
    attention = {"num_heads": 2, "context": 16} if architecture == "transformer" else {}
    config = ModelConfig(
        vocabulary_size=VOCABULARY_SIZE, architecture=architecture, embedding_dim=8, hidden_dim=8, **attention
    )
    generator = np.random.default_rng(1)
    parameters = random_parameters(config)
    if has_ngrams:
        text = generator.integers(VOCABULARY_SIZE, size=300, dtype=np.uint8)
        estimate = estimate_ngrams(text, VOCABULARY_SIZE, 3, 10**6)
        config, parameters = dataclasses.replace(config, ngrams=estimate.ngrams), parameters | estimate.tensors
    model = build_language_model(config, parameters)
    prompts = [generator.integers(VOCABULARY_SIZE, size=generator.integers(1, 40)) for _ in range(BATCH_SIZE + 5)]
    alone = [list(generate(model, prompt, GREEDY)) for prompt in prompts]
    lengths = set()
    for end in range(VOCABULARY_SIZE):
        completions = complete_greedily(model, prompts, end, GREEDY.length)
        assert completions == [ids[: ids.index(end)] if end in ids else ids for ids in alone]
        lengths.update(map(len, completions))
    assert len(lengths) > 2


def test_a_completion_ends_at_the_end_of_text_or_the_maximum() -> None:
    prompts = [np.array([0]), np.array([0, 1, 0])]
    assert complete_greedily(FixedModel([0.0, 1.0, 2.0]), prompts, 2, 4) == [[], []]
    assert complete_greedily(FixedModel([0.0, 2.0, 1.0]), prompts, 2, 4) == [[1] * 4, [1] * 4]
