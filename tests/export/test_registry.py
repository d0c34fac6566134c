"""The formats that each architecture and tokenizer supports; the written files, read without the other programs."""

import json
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from random_models import TEXT, bundle_of, quickfox_logits, tokenizer_for_text

from ngram_models import NETWORK_LOSS, mix_with_ngrams, ngram_bundle
from quickfox.checkpoints.tensors import parse_tensors
from quickfox.errors import CannotCreateError, UsageError
from quickfox.export.gguf import FILE_NAME
from quickfox.export.registry import ExportFormat, export, extract_network
from quickfox.models.parameters import parameter_count
from quickfox.tokenizers.bpe import BpeTokenizer

CHARACTERS = tokenizer_for_text("char", end_of_text=False)


@pytest.mark.parametrize("export_format", ["huggingface", "gguf"])
@pytest.mark.parametrize("architecture", ["rnn", "gru", "lstm", "attention-rnn"])
def test_huggingface_and_gguf_require_a_transformer(tmp_path: Path, export_format, architecture) -> None:
    with pytest.raises(UsageError, match=f"^{export_format} requires .* {architecture}; keras takes"):
        export(bundle_of(CHARACTERS, architecture), export_format, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("export_format", get_args(ExportFormat))
def test_an_ngram_model_has_no_network_to_export(tmp_path: Path, export_format) -> None:
    with pytest.raises(UsageError, match=r"^the model has the architecture ngram, which has no network to export"):
        export(ngram_bundle(CHARACTERS, TEXT, order=3), export_format, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_the_network_of_a_mixture_has_its_weights_and_its_loss() -> None:
    network = bundle_of(CHARACTERS)
    extracted = extract_network(mix_with_ngrams(network, TEXT, order=3))
    assert extracted.config == network.config
    assert list(extracted.parameters) == list(network.parameters)
    assert (extracted.validation_loss, extracted.network_loss) == (NETWORK_LOSS, None)
    ids = np.array([CHARACTERS.encode("The lazy fox")])
    np.testing.assert_array_equal(quickfox_logits(extracted, ids), quickfox_logits(network, ids))
    assert extract_network(network) is network


@pytest.mark.parametrize("export_format", ["huggingface", "gguf"])
def test_the_export_of_a_mixture_is_that_of_its_network(tmp_path: Path, export_format) -> None:
    if export_format == "gguf":
        pytest.importorskip("gguf")
    network = bundle_of(CHARACTERS)
    export(network, export_format, tmp_path / "network")
    export(mix_with_ngrams(network, TEXT, order=3), export_format, tmp_path / "mixture")
    files = [{path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("network", "mixture")]
    assert files[0] == files[1] != {}


def test_an_unknown_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="must be one of huggingface, gguf, keras, not 'onnx'"):
        export(bundle_of(CHARACTERS), "onnx", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_gguf_refuses_unsupported_tokenizers(tmp_path: Path) -> None:
    words = tokenizer_for_text("word", end_of_text=False)
    with pytest.raises(UsageError, match="does not support the word tokenizer"):
        export(bundle_of(words), "gguf", tmp_path / "out")
    subwords = tokenizer_for_text("bpe", end_of_text=False)
    assert isinstance(subwords, BpeTokenizer)
    byte_level = {**subwords.definition["pre_tokenizer"], "use_regex": False}
    digits = {"type": "Digits", "individual_digits": True}
    other = {**subwords.definition, "pre_tokenizer": {"type": "Sequence", "pretokenizers": [digits, byte_level]}}
    with pytest.raises(UsageError, match="does not support the pre-tokenizer"):
        export(bundle_of(BpeTokenizer(other)), "gguf", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_directory_with_files_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "file").write_text("content")
    with pytest.raises(CannotCreateError, match="out"):
        export(bundle_of(CHARACTERS), "huggingface", tmp_path / "out")
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "file"]


@pytest.mark.parametrize("tied", [False, True])
def test_huggingface_files_are_consistent(tmp_path: Path, tied: bool) -> None:
    bundle = bundle_of(tokenizer_for_text("byte", end_of_text=True), tied_embeddings=tied)
    export(bundle, "huggingface", tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (config["architectures"], config["vocab_size"], config["eos_token_id"]) == (["LlamaForCausalLM"], 257, 256)
    tensors = parse_tensors((tmp_path / "out" / "model.safetensors").read_bytes(), "model.safetensors")
    assert sum(tensor.size for tensor in tensors.values()) == parameter_count(bundle.config)
    assert ("lm_head.weight" in tensors) is not tied
    assert tensors["model.layers.1.mlp.down_proj.weight"].shape == (32, config["intermediate_size"])


@pytest.mark.parametrize("kind", ["char", "byte", "bpe"])
def test_gguf_files_contain_all_weights_and_tokens(tmp_path: Path, kind) -> None:
    gguf = pytest.importorskip("gguf")
    bundle = bundle_of(tokenizer_for_text(kind, end_of_text=True))
    export(bundle, "gguf", tmp_path / "out")
    reader = gguf.GGUFReader(tmp_path / "out" / FILE_NAME)
    assert sum(int(tensor.n_elements) for tensor in reader.tensors) == parameter_count(bundle.config)
    tensors = {tensor.name: tensor.data for tensor in reader.tensors}
    np.testing.assert_array_equal(tensors["token_embd.weight"], bundle.parameters["embedding.weight"])
    kernel = bundle.parameters["layers.1.attention.output_kernel"]
    np.testing.assert_array_equal(tensors["blk.1.attn_output.weight"], kernel.T)
    assert len(reader.fields["tokenizer.ggml.tokens"].contents()) == bundle.config.vocabulary_size
    assert reader.fields["llama.context_length"].contents() == bundle.config.context
    assert reader.fields["tokenizer.ggml.eos_token_id"].contents() == bundle.tokenizer.end_of_text
