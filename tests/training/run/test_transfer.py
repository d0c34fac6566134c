"""Starting from a trained model: what is taken over, what is new, what is refused; and that it helps."""

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import quickfox
from quickfox.checkpoints.checkpoint import ModelBundle, load_model
from quickfox.checkpoints.run_directory import checkpoints_of
from quickfox.config.model import ModelConfig
from quickfox.config.training import TrainingRequest
from quickfox.errors import DataError, NoInputError, UsageError
from quickfox.models.parameters import parameter_shapes
from quickfox.text.corpus import open_corpus
from quickfox.text.vocabulary import Vocabulary
from quickfox.tokenizers.byte_level import ByteTokenizer
from quickfox.tokenizers.character import CharacterTokenizer
from quickfox.training.engine.events import RunContext, RunFinished, RunRequest
from quickfox.training.run.resume import resume_run
from quickfox.training.run.start import start_run
from quickfox.training.run.transfer import extend_vocabulary, transfer_weights

TEXT = "the quick brown fox jumps over the lazy dog\n" * 120
OTHER = "THE lazy fox, the quick dog!\n" * 60
SMALL: dict[str, Any] = {"batch_size": 4, "window": 16, "random_seed": 1}


def run(folder: Path, text: str, init_from: Path | None = None, vocab: Path | None = None, **options: Any) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "corpus.txt").write_text(text, encoding="utf-8")
    events = start_run(
        open_corpus([str(folder / "corpus.txt")], print),
        "corpus",
        RunRequest(
            training=TrainingRequest(**{**SMALL, "steps": 150, **options}),
            output=folder / "run",
            vocabulary_path=vocab,
            init_from=init_from,
        ),
        RunContext(notify=lambda line: None, started=time.monotonic()),
    )
    assert isinstance(list(events)[-1], RunFinished)
    return folder / "run"


def first_loss(path: Path) -> float:
    return float(json.loads((path / "history.jsonl").read_text().splitlines()[0])["validation_loss"])


def embedding(path: Path) -> np.ndarray:
    return load_model(checkpoints_of(path)[-1].directory).parameters["embedding.weight"]


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(tmp_path_factory.mktemp("start"), TEXT, hidden_dim=24, embedding_dim=6, steps=400)


def test_known_tokens_keep_their_weights_and_new_ones_their_fresh_ones() -> None:
    old, new = CharacterTokenizer(Vocabulary(tuple("ac"))), CharacterTokenizer(Vocabulary(tuple("abc")))
    sizes = {"embedding_dim": 2, "hidden_dim": 3}
    config = ModelConfig(vocabulary_size=2, **sizes)
    trained = {
        name: np.random.default_rng(0).normal(size=shape).astype(np.float32)
        for name, shape in parameter_shapes(config).items()
    }
    bundle = ModelBundle(config, old, trained, 1, None, {})
    fresh = {
        name: np.full(shape, 7, np.float32)
        for name, shape in parameter_shapes(ModelConfig(vocabulary_size=3, **sizes)).items()
    }
    weights = transfer_weights(fresh, new, bundle)
    for name, axis in (("embedding.weight", 0), ("output.kernel", 1), ("output.bias", 0)):
        assert weights[name].shape == fresh[name].shape
        np.testing.assert_array_equal(np.take(weights[name], [0, 2], axis), trained[name])
        np.testing.assert_array_equal(np.take(weights[name], 1, axis), 7)
    np.testing.assert_array_equal(weights["recurrent.0.input_kernel"], trained["recurrent.0.input_kernel"])
    assert (fresh["output.kernel"] == 7).all()


def test_only_characters_need_to_grow() -> None:
    tokenizer = CharacterTokenizer(Vocabulary(tuple("bd"), min_count=2), has_end_of_text=True)
    assert extend_vocabulary(tokenizer, set("abc")) == CharacterTokenizer(
        Vocabulary(tuple("abcd"), 2), has_end_of_text=True
    )
    assert extend_vocabulary(ByteTokenizer(), set("abc")) == ByteTokenizer()


def test_what_was_learnt_helps_with_another_text(start: Path, tmp_path: Path) -> None:
    """After a few steps the new model knows more than one that started afresh, new characters and all."""
    from_start = run(tmp_path / "from", OTHER, init_from=start, steps=20)
    afresh = run(tmp_path / "afresh", OTHER, hidden_dim=24, embedding_dim=6, steps=20)
    assert first_loss(from_start) < first_loss(afresh)
    record = json.loads((from_start / "run.json").read_text())
    assert record["model"]["hidden_dim"] == 24
    assert (
        record["training"]["learning_rate"] < json.loads((afresh / "run.json").read_text())["training"]["learning_rate"]
    )
    assert Path(record["init_from"]["directory"]).parent.parent == start
    assert quickfox.load(from_start).generate("THE", length=5)


def test_a_frozen_embedding_stays_as_it_was(start: Path, tmp_path: Path) -> None:
    path = run(tmp_path / "frozen", TEXT[:2000], init_from=start, freeze_embeddings=True, steps=20)
    best = load_model(Path(json.loads((path / "run.json").read_text())["init_from"]["directory"]))
    np.testing.assert_array_equal(embedding(path), best.parameters["embedding.weight"])
    unfrozen = run(tmp_path / "unfrozen", TEXT[:2000], init_from=start, steps=20)
    assert (embedding(unfrozen) != embedding(path)).any()


def test_a_run_that_was_killed_before_its_first_checkpoint_starts_from_the_same_model(
    start: Path, tmp_path: Path
) -> None:
    path = run(tmp_path / "whole", OTHER, init_from=start, steps=10)
    expected = embedding(path)
    for checkpoint in checkpoints_of(path):
        for file in checkpoint.directory.iterdir():
            file.unlink()
        checkpoint.directory.rmdir()
    run_context = RunContext(notify=lambda line: None, started=time.monotonic())
    list(resume_run(path, TrainingRequest(), run_context=run_context))
    np.testing.assert_array_equal(embedding(path), expected)


def test_another_tokenizer_keeps_the_tokens_that_both_have(start: Path, tmp_path: Path) -> None:
    path = run(tmp_path / "bytes", OTHER, init_from=start, tokenizer="byte", steps=5)
    assert json.loads((path / "run.json").read_text())["model"]["vocabulary_size"] == 256


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden_dim": 25}, "hidden_dim is 24 in the pretrained model, not 25"),
        ({"architecture": "gru"}, "architecture is lstm in the pretrained model, not gru"),
        ({"size": "tiny"}, "size and init_from exclude each other"),
    ],
)
def test_other_sizes_are_refused(start: Path, tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        run(tmp_path / "new", OTHER, init_from=start, **options)
    assert not (tmp_path / "new" / "run").exists()


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NoInputError):
        run(tmp_path / "new", OTHER, init_from=tmp_path / "nowhere")
    (tmp_path / "file").write_text("no model")
    with pytest.raises((DataError, NoInputError)):
        run(tmp_path / "new", OTHER, init_from=tmp_path / "file")


def test_fresh_embeddings_cannot_be_frozen(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="freeze_embeddings needs init_from"):
        run(tmp_path / "new", OTHER, freeze_embeddings=True)
