"""A huggingface export loaded by transformers gives the same token ids, logits and greedy text."""

from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from random_models import CONTEXT, TEXT, bundle_of, quickfox_greedy_ids, quickfox_logits, tokenizer_for_text

from quickfox.config.model import TokenizerKind
from quickfox.export.registry import export
from quickfox.tokenizers.base import start_of_text

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


@pytest.mark.parametrize("kind", get_args(TokenizerKind))
@pytest.mark.parametrize("end_of_text", [False, True])
def test_ids_logits_and_greedy_text_are_equal(tmp_path: Path, kind: TokenizerKind, end_of_text: bool) -> None:
    bundle = bundle_of(tokenizer_for_text(kind, end_of_text=end_of_text), tied_embeddings=end_of_text)
    export(bundle, "huggingface", tmp_path / "out")
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    assert type(model).__name__ == "LlamaForCausalLM"

    token_ids = tokenizer("The lazy fox", return_tensors="pt").input_ids
    start = start_of_text(bundle.tokenizer).tolist() if end_of_text else []
    ids = start + bundle.tokenizer.encode("The lazy fox").tolist()
    assert token_ids[0].tolist() == ids
    with torch.no_grad():
        logits = model(token_ids).logits.numpy()
    np.testing.assert_allclose(logits, quickfox_logits(bundle, np.array([ids])), atol=1e-4)

    count = CONTEXT - len(ids)
    greedy = model.generate(token_ids, max_new_tokens=count, do_sample=False)[0, len(ids) :].tolist()
    expected = quickfox_greedy_ids(bundle, ids, count)
    if end_of_text and bundle.tokenizer.end_of_text in expected:
        expected = expected[: expected.index(bundle.tokenizer.end_of_text) + 1]
    assert greedy == expected
    assert tokenizer.decode(tokenizer(TEXT).input_ids, skip_special_tokens=True) == TEXT
