"""The processors give the same probabilities as those of Hugging Face transformers.

Always compared: cases recorded from it. If transformers is installed: thousands of random cases, without ties and away
from thresholds. `python tests/generation/test_against_transformers.py` records the cases again.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from quickfox.config.sampling import SamplingConfig
from quickfox.generation.logits_processors import build_processors, build_truncations, sort_descending
from quickfox.generation.token_history import TokenHistory

GOLDEN = Path(__file__).with_name("transformers_golden.json")
CASES = 3000
MARGIN = 1e-9


def our_probabilities(case: dict[str, Any]) -> np.ndarray:
    """(V,) probabilities after all processors of a case."""
    logits = np.array([case["logits"]])
    vocabulary_size = logits.shape[1]
    config = SamplingConfig(**case["settings"], penalty_window=None)
    history = TokenHistory(np.array(case["prompt"]), 1, vocabulary_size, config)
    for process in build_processors(config, history, np.array(case["bias"])):
        logits = process(logits)
    probs, token_ids = sort_descending(logits)
    for truncate in build_truncations(config, vocabulary_size):
        probs = truncate(probs)
    probabilities = np.zeros(vocabulary_size)
    probabilities[token_ids[0, : probs.shape[1]]] = probs[0] / probs.sum()
    return probabilities


def their_probabilities(case: dict[str, Any]) -> np.ndarray:
    """(V,) probabilities by transformers, with its processors in the order of its `generate`."""
    import torch
    from transformers.generation import logits_process as theirs

    settings, prompt = case["settings"], torch.tensor([case["prompt"]])
    bias = {(token_id,): value for token_id, value in enumerate(case["bias"]) if value}
    chain: list[Any] = [theirs.SequenceBiasLogitsProcessor(sequence_bias=bias)] if bias else []
    for name, make in (
        ("repetition_penalty", theirs.RepetitionPenaltyLogitsProcessor),
        ("no_repeat_ngram", theirs.NoRepeatNGramLogitsProcessor),
        ("temperature", theirs.TemperatureLogitsWarper),
        ("top_k", theirs.TopKLogitsWarper),
        ("top_p", theirs.TopPLogitsWarper),
        ("min_p", theirs.MinPLogitsWarper),
        ("typical_p", theirs.TypicalLogitsWarper),
    ):
        if name in settings:
            chain.append(make(settings[name]))
    scores = torch.tensor([case["logits"]], dtype=torch.float64)
    for process in chain:
        scores = process(prompt, scores).to(torch.float64)  # SequenceBiasLogitsProcessor returns float32
    probabilities: np.ndarray = torch.softmax(scores, -1)[0].numpy()
    return probabilities


def random_case(random: np.random.Generator, vocabulary_size: int) -> dict[str, Any]:
    """A case with some of the settings, of numbers with few digits so that the recorded file stays small."""
    choices: dict[str, Any] = {
        "repetition_penalty": round(float(random.uniform(0.5, 2)), 3),
        "no_repeat_ngram": int(random.integers(1, 4)),
        "temperature": round(float(random.uniform(0.3, 2)), 3),
        "top_k": int(random.integers(1, vocabulary_size + 3)),
        "top_p": round(float(random.uniform(0.05, 0.99)), 3),
        "min_p": round(float(random.uniform(0.001, 0.9)), 3),
        "typical_p": round(float(random.uniform(0.05, 0.99)), 3),
    }
    some = random.random() if random.random() < 0.7 else 1.0
    bias = random.integers(-8, 9, vocabulary_size) * 0.25 * (random.random(vocabulary_size) < random.choice([0, 0.3]))
    return {
        "logits": (random.permutation(vocabulary_size) * 0.125 + random.integers(0, 2**10) * 2.0**-12 - 4).tolist(),
        "prompt": random.integers(0, vocabulary_size, int(random.integers(1, 6))).tolist(),
        "bias": bias.tolist(),
        "settings": {name: value for name, value in choices.items() if random.random() < some},
    }


def random_cases(random_seed: int, count: int) -> list[dict[str, Any]]:
    """Random cases, except those in which the n-gram ban bans every token: transformers fails there."""
    random = np.random.default_rng(random_seed)
    cases = (random_case(random, int(size)) for size in random.choice([2, 7, 30, 65, 200], size=3 * count))
    return [case for case in cases if len(set(case["prompt"])) < len(case["logits"])][:count]


def is_near_a_threshold(case: dict[str, Any]) -> bool:
    """Whether slightly different thresholds change which tokens are kept, or two tokens are equally probable."""
    kept = []
    for factor in (1 - MARGIN, 1 + MARGIN):
        moved = {
            name: min(1.0, value * factor) if name in ("top_p", "min_p", "typical_p") else value
            for name, value in case["settings"].items()
        }
        kept.append(our_probabilities({**case, "settings": moved}) > 0)
    return bool((kept[0] != kept[1]).any()) or _has_ties(case)


def _has_ties(case: dict[str, Any]) -> bool:
    """Whether two logits are equal, up to rounding, before truncation."""
    settings = {name: case["settings"][name] for name in ("repetition_penalty",) if name in case["settings"]}
    probabilities = np.sort(our_probabilities({**case, "settings": settings}))
    return bool((np.diff(probabilities) <= 1e-6 * probabilities[1:]).any())


def test_recorded_cases_match() -> None:
    recorded = json.loads(GOLDEN.read_text())
    assert len(recorded["cases"]) >= 20
    for case in recorded["cases"]:
        expected = np.zeros(len(case["logits"]))
        expected[[int(token_id) for token_id in case["probabilities"]]] = list(case["probabilities"].values())
        np.testing.assert_allclose(our_probabilities(case), expected, atol=1e-6)


def test_random_cases_match() -> None:
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    cases = [case for case in random_cases(0, CASES) if not is_near_a_threshold(case)]
    assert len(cases) > CASES / 2
    for case in cases:
        ours, theirs = our_probabilities(case), their_probabilities(case)
        assert ((ours > 0) == (theirs > 0)).all(), case
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


def record(count: int = 24) -> None:
    """Write the golden cases."""
    import transformers

    cases = [case for case in random_cases(1, 400) if len(case["logits"]) <= 30 and not is_near_a_threshold(case)]
    for case in cases:
        probabilities = their_probabilities(case)
        case["probabilities"] = {str(k): round(float(p), 9) for k, p in enumerate(probabilities) if p > 0}
    varied = sorted(cases, key=lambda case: -len(case["settings"]))[: count // 2] + cases[: count - count // 2]
    lines = ",\n".join(json.dumps(case) for case in varied)
    GOLDEN.write_text(f'{{"transformers": "{transformers.__version__}", "cases": [\n{lines}\n]}}\n')


if __name__ == "__main__":
    record()
