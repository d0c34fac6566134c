"""A keras export loaded by Keras gives the same logits as the network, for every architecture."""

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from random_models import TEXT, bundle_of, quickfox_logits, tokenizer_for_text

from ngram_models import mix_with_ngrams
from quickfox.checkpoints.checkpoint import ModelBundle
from quickfox.export.keras import FILE_NAME
from quickfox.export.registry import export, extract_network
from quickfox.training.tensorflow_runtime import start_tensorflow
from toy_models import NETWORK_ARCHITECTURES

pytest.importorskip("keras", reason="Keras is what these tests load the exported files with")
start_tensorflow(threads=2)

CHARACTERS = tokenizer_for_text("char", end_of_text=False)
SHORT_CONTEXT = 5  # shorter than the tested texts

CASES = {name: bundle_of(CHARACTERS, name) for name in NETWORK_ARCHITECTURES} | {
    "gru with n-grams": mix_with_ngrams(bundle_of(CHARACTERS, "gru"), TEXT, order=3),
    "attention-rnn, short context": bundle_of(CHARACTERS, "attention-rnn", context=SHORT_CONTEXT),
    "transformer, short context": bundle_of(CHARACTERS, context=SHORT_CONTEXT),
    "transformer, tied": bundle_of(CHARACTERS, tied_embeddings=True),
}


@pytest.fixture(scope="module", params=CASES)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[ModelBundle, Path]:
    """The network of a model and its exported file."""
    bundle, directory = CASES[request.param], tmp_path_factory.mktemp("export") / "out"
    export(bundle, "keras", directory)
    return extract_network(bundle), directory / FILE_NAME


def test_logits_are_equal_for_any_batch_size_and_length(exported: tuple[ModelBundle, Path]) -> None:
    import keras

    bundle, path = exported
    model = keras.models.load_model(path)
    for batch_size, length in ((3, 17), (1, 2)):
        ids = np.random.default_rng(0).integers(0, CHARACTERS.vocabulary_size, (batch_size, length))
        np.testing.assert_allclose(model(ids).numpy(), quickfox_logits(bundle, ids), atol=1e-4)


def modules_of(config: Any) -> Iterator[str]:
    """The module of every class that a Keras configuration names, at any depth."""
    if isinstance(config, dict) and {"class_name", "module"} <= config.keys():
        yield config["module"]
    for value in config.values() if isinstance(config, dict) else config if isinstance(config, list) else []:
        yield from modules_of(value)


def test_the_file_names_modules_of_keras_only(exported: tuple[ModelBundle, Path]) -> None:
    """Loading imports the modules that the file names; none of them is part of Quickfox."""
    with zipfile.ZipFile(exported[1]) as archive:
        modules = set(modules_of(json.loads(archive.read("config.json"))))
    assert {module.split(".")[0] for module in modules} == {"keras"}
