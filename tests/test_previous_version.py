"""Models and vocabularies of version 0.1.0 give the texts, losses and token ids that they gave there.

The fixture was written by that version, before its packages were renamed. A run of it is resumed in
tests/training/run/test_previous_version.py.
"""

import json
from pathlib import Path

import pytest

import quickfox
from quickfox.tokenizers.serialization import load_tokenizer

FIXTURE = Path(__file__).parent / "fixtures" / "version_0_1_0"
EXPECTED = json.loads((FIXTURE / "expected.json").read_text(encoding="utf-8"))
TEXT = (FIXTURE / "text.txt").read_text(encoding="utf-8")
PROMPT = "The quick fox jumps over"


@pytest.mark.parametrize("architecture", EXPECTED["models"])
def test_generated_texts_and_loss_of_a_model(architecture: str) -> None:
    model = quickfox.load(FIXTURE / "models" / architecture)
    expected = EXPECTED["models"][architecture]
    # The recorded texts are outputs of the command line, which ends them with a newline.
    assert model.generate("The quick", length=60, temperature=0.0) + "\n" == expected["greedy"]
    assert model.generate("The quick", length=60, random_seed=1) + "\n" == expected["sampled"]
    assert model.evaluate(TEXT).nats_per_token == pytest.approx(expected["nats_per_token"], abs=1e-4)


@pytest.mark.parametrize("kind", EXPECTED["vocabularies"])
def test_token_ids_of_a_vocabulary(kind: str) -> None:
    tokenizer = load_tokenizer(FIXTURE / "vocabularies" / f"{kind}.json")
    ids = tokenizer.encode(PROMPT).tolist()
    assert tokenizer.kind == kind
    assert ids == EXPECTED["vocabularies"][kind]
    assert tokenizer.decode(ids) == PROMPT
