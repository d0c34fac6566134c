"""What we export as `keras`, opened by a Keras that has never heard of us: our logits, for every architecture."""

import subprocess
import sys
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from random_models import bundle_of, our_logits, tokenizer_for_text

from quickfox.config.model import Architecture
from quickfox.export.keras import FILE_NAME
from quickfox.export.registry import export
from quickfox.training.tensorflow_runtime import start_tensorflow

pytest.importorskip("keras", reason="the subject of these tests")
start_tensorflow(threads=2)

CHARACTERS = tokenizer_for_text("char", end_of_text=False)
SHORT_CONTEXT = 5  # so that what lies farther back must be out of sight

CASES = {name: bundle_of(CHARACTERS, name) for name in get_args(Architecture)} | {
    "attention-rnn, short context": bundle_of(CHARACTERS, "attention-rnn", context=SHORT_CONTEXT),
    "transformer, short context": bundle_of(CHARACTERS, context=SHORT_CONTEXT),
    "transformer, tied": bundle_of(CHARACTERS, tied_embeddings=True),
}


@pytest.mark.parametrize("case", CASES)
def test_logits_are_ours_whatever_the_length(tmp_path: Path, case: str) -> None:
    import keras

    bundle = CASES[case]
    export(bundle, "keras", tmp_path / "out")
    model = keras.models.load_model(tmp_path / "out" / FILE_NAME)
    for batch_size, length in ((3, 17), (1, 2)):
        ids = np.random.default_rng(0).integers(0, CHARACTERS.vocabulary_size, (batch_size, length))
        np.testing.assert_allclose(model(ids).numpy(), our_logits(bundle, ids), atol=1e-4)


def test_the_file_needs_nothing_of_ours(tmp_path: Path) -> None:
    export(CASES["transformer"], "keras", tmp_path / "out")
    program = (
        "import keras, sys; model = keras.models.load_model(sys.argv[1]); "
        "assert not [name for name in sys.modules if name.startswith('quickfox')]; print(model.count_params())"
    )
    result = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "out" / FILE_NAME], capture_output=True, text=True, check=True
    )
    assert int(result.stdout) == sum(tensor.size for tensor in CASES["transformer"].parameters.values())
