"""A gguf export loaded by llama.cpp gives the same token ids, logits and greedy text."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from random_models import CONTEXT, TEXT, bundle_of, quickfox_greedy_ids, quickfox_logits, tokenizer_for_text

from quickfox.config.model import TokenizerKind
from quickfox.export.gguf import FILE_NAME
from quickfox.export.registry import export

llama_cpp = pytest.importorskip("llama_cpp")
pytest.importorskip("gguf")

FLOAT32_CACHE = {
    "type_k": 0,
    "type_v": 0,
    "flash_attn": False,
}  # by default llama.cpp rounds keys and values to float16


@pytest.mark.parametrize("kind", ["char", "byte", "bpe"])
@pytest.mark.parametrize("end_of_text", [False, True])
def test_ids_logits_and_greedy_text_are_equal(tmp_path: Path, kind: TokenizerKind, end_of_text: bool) -> None:
    bundle = bundle_of(tokenizer_for_text(kind, end_of_text=end_of_text), tied_embeddings=end_of_text)
    export(bundle, "gguf", tmp_path / "out")
    model = llama_cpp.Llama(
        str(tmp_path / "out" / FILE_NAME), n_ctx=CONTEXT, verbose=False, logits_all=True, **FLOAT32_CACHE
    )
    for text in (TEXT, "'tis  done !\n\n\t x", " T"):
        known = "".join(character for character in text if character in bundle.tokenizer.known_characters)
        assert model.tokenize(known.encode(), add_bos=False) == bundle.tokenizer.encode(known).tolist()

    ids = bundle.tokenizer.encode("The lazy fox").tolist()
    if bundle.tokenizer.end_of_text is not None:
        ids = [bundle.tokenizer.end_of_text, *ids]
        assert model.tokenize(b"<|endoftext|>The lazy fox", add_bos=False, special=True) == ids
        assert model.token_eos() == bundle.tokenizer.end_of_text
    model.eval(ids)
    np.testing.assert_allclose(model.scores[: len(ids)], quickfox_logits(bundle, np.array([ids]))[0], atol=1e-4)

    greedy = []
    for _ in range(CONTEXT - len(ids)):
        greedy.append(int(model.scores[model.n_tokens - 1].argmax()))
        model.eval(greedy[-1:])
    assert greedy == quickfox_greedy_ids(bundle, ids, len(greedy))


def test_bytes_of_unknown_characters_become_unknown_tokens(tmp_path: Path) -> None:
    bundle = bundle_of(tokenizer_for_text("char", end_of_text=False))
    export(bundle, "gguf", tmp_path / "out")
    model = llama_cpp.Llama(str(tmp_path / "out" / FILE_NAME), n_ctx=CONTEXT, verbose=False)
    assert (
        model.tokenize("The€fox%".encode(), add_bos=False) == bundle.tokenizer.encode("The€€€fox%", Counter()).tolist()
    )
