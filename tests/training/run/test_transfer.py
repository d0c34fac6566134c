"""Starting from a pretrained model: which weights and settings are adopted, and what is refused."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from run_driver import TEXT, at_step, is_start, outcome, resume, start

from quickfox.checkpoints.checkpoint import ModelBundle, load_model
from quickfox.checkpoints.run_directory import list_checkpoints
from quickfox.config.model import ModelConfig
from quickfox.errors import DataError, NoInputError, UsageError
from quickfox.models.ngram.kneser_ney import estimate_ngrams
from quickfox.models.parameters import ngram_specs, parameter_shapes
from quickfox.text.corpus import open_corpus
from quickfox.text.vocabulary import Vocabulary
from quickfox.tokenizers.character import CharacterTokenizer
from quickfox.training.engine.events import RunStarted
from quickfox.training.planning.auto_config import default_budget
from quickfox.training.run.transfer import extend_vocabulary, transfer_weights

pytestmark = pytest.mark.usefixtures("fake_training")

OTHER_TEXT = "THE lazy fox, the quick dog!\n" * 60
SETTINGS: dict[str, Any] = {"batch_size": 4, "window": 16, "random_seed": 1, "threads": 2}


def start_from(pretrained: Path, folder: Path, text: str = OTHER_TEXT, **options: Any) -> Path:
    """The directory of a new run of ten steps that starts from the run in the folder `pretrained`."""
    start(folder, text=text, settings=SETTINGS, options={"steps": 10, **options}, init_from=pretrained / "run")
    return folder / "run"


def embedding(run: Path) -> np.ndarray:
    return load_model(list_checkpoints(run)[-1].directory).parameters["embedding.weight"]


def test_known_tokens_keep_their_weights_and_new_tokens_their_random_weights() -> None:
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


def test_the_tables_of_the_pretrained_model_are_not_transferred() -> None:
    tokenizer = CharacterTokenizer(Vocabulary(tuple("ac")))
    network = ModelConfig(vocabulary_size=2, embedding_dim=2, hidden_dim=3)
    weights = {name: np.ones(shape, np.float32) for name, shape in parameter_shapes(network).items()}
    estimate = estimate_ngrams(np.array([0, 1, 1], np.uint8), 2, 2, 10)
    mixture = dataclasses.replace(network, ngrams=estimate.ngrams)
    bundle = ModelBundle(mixture, tokenizer, {**weights, **estimate.tensors}, 1, None, {})
    fresh = {name: np.zeros(shape, np.float32) for name, shape in parameter_shapes(network).items()}
    transferred = transfer_weights(fresh, tokenizer, bundle)
    assert transferred.keys() == weights.keys()
    assert all((transferred[name] == 1).all() for name in weights)


def test_the_tables_are_those_of_the_new_text(uninterrupted: Path, tmp_path: Path) -> None:
    bundle = load_model(list_checkpoints(start_from(uninterrupted, tmp_path))[-1].directory)
    text = OTHER_TEXT[: round(0.9 * len(OTHER_TEXT))]
    ids = np.array(bundle.tokenizer.encode(text), np.uint8)
    expected = estimate_ngrams(ids, bundle.config.vocabulary_size, len(bundle.config.ngrams), 10**6)
    assert bundle.config.ngrams == expected.ngrams
    assert list(expected.tensors) == list(ngram_specs(bundle.config))
    for name, tensor in expected.tensors.items():
        np.testing.assert_array_equal(bundle.parameters[name], tensor)


def test_a_character_vocabulary_is_extended() -> None:
    tokenizer = CharacterTokenizer(Vocabulary(tuple("bd"), min_count=2), has_end_of_text=True)
    assert extend_vocabulary(tokenizer, set("abc")) == CharacterTokenizer(
        Vocabulary(tuple("abcd"), 2), has_end_of_text=True
    )


def test_a_run_records_its_pretrained_model_and_adopts_its_sizes(uninterrupted: Path, tmp_path: Path) -> None:
    record = json.loads((start_from(uninterrupted, tmp_path) / "run.json").read_text())
    assert record["model"]["hidden_dim"] == 16
    assert record["training"]["learning_rate"] == pytest.approx(0.3 * 0.01)
    assert Path(record["init_from"]["directory"]).parent.parent == uninterrupted / "run"


def test_only_frozen_embeddings_keep_their_weights(uninterrupted: Path, tmp_path: Path) -> None:
    text = TEXT[:1500]
    frozen = start_from(uninterrupted, tmp_path / "frozen", text, freeze_embeddings=True)
    record = json.loads((frozen / "run.json").read_text())
    pretrained = load_model(Path(record["init_from"]["directory"])).parameters["embedding.weight"]
    np.testing.assert_array_equal(embedding(frozen), pretrained)
    assert (embedding(start_from(uninterrupted, tmp_path / "trained", text)) != pretrained).any()


def test_a_run_killed_before_its_first_checkpoint_starts_from_the_same_model(
    uninterrupted: Path, tmp_path: Path
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    start_from(uninterrupted, whole)
    request = {"settings": SETTINGS, "options": {"steps": 10}, "init_from": uninterrupted / "run"}
    start(killed, text=OTHER_TEXT, kill=is_start, **request)
    resume(killed)
    assert outcome(killed) == outcome(whole)


def test_another_tokenizer_keeps_the_tokens_of_both(uninterrupted: Path, tmp_path: Path) -> None:
    run = start_from(uninterrupted, tmp_path, tokenizer="byte")
    assert json.loads((run / "run.json").read_text())["model"]["vocabulary_size"] == 256


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden_dim": 25}, "hidden_dim is 16 in the pretrained model, not 25"),
        ({"architecture": "gru"}, "architecture is lstm in the pretrained model, not gru"),
        ({"size": "tiny"}, "size and init_from exclude each other"),
    ],
)
def test_other_sizes_are_refused(uninterrupted: Path, tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        start_from(uninterrupted, tmp_path, **options)
    assert not (tmp_path / "run").exists()


def test_an_ngram_model_has_no_weights_to_start_from(tmp_path: Path) -> None:
    start(tmp_path / "ngram", settings={}, options={"architecture": "ngram", "budget": 60.0})
    for architecture in (None, "lstm", "ngram"):
        with pytest.raises(UsageError, match=r"ngram/run is an n-gram model, .*: leave init_from out") as caught:
            start_from(tmp_path / "ngram", tmp_path / "new", architecture=architecture)
        assert caught.value.settings == ("init_from",)
        assert not (tmp_path / "new" / "run").exists()


def test_an_ngram_model_cannot_start_from_weights(uninterrupted: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="architecture is lstm in the pretrained model, not ngram"):
        start_from(uninterrupted, tmp_path, architecture="ngram")
    assert not (tmp_path / "run").exists()


# Settings of an earlier run


def start_like(run: Path, folder: Path, **options: Any) -> RunStarted:
    """The start of a run with the settings in the record of the run in the folder `run`."""
    (first, *_) = start(
        folder, settings={}, options=options, config_from=run / "run" / "run.json", kill=is_start, text=TEXT
    )
    return first


@pytest.fixture(scope="module")
def ngram_run(fake_training: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of an n-gram model alone."""
    folder = tmp_path_factory.mktemp("ngram")
    start(folder, settings={}, options={"architecture": "ngram", "ngram": 5, "budget": 60.0, "threads": 2})
    return folder


def test_a_run_of_an_ngram_model_is_repeated(ngram_run: Path, tmp_path: Path) -> None:
    again = start_like(ngram_run, tmp_path)
    assert (again.model.architecture, again.training.ngram_order, again.training.steps) == ("ngram", 5, 1)
    other_order = start_like(ngram_run, tmp_path / "other", ngram=3)
    assert (other_order.model.architecture, other_order.training.ngram_order) == ("ngram", 3)


def test_a_network_takes_only_the_order_of_an_ngram_run(ngram_run: Path, tmp_path: Path) -> None:
    network = start_like(ngram_run, tmp_path, architecture="lstm", hidden_dim=8, steps=3)
    default = start_like(ngram_run, tmp_path / "default", architecture="lstm", hidden_dim=8)
    for run in (network, default):
        assert (run.model.architecture, run.training.ngram_order) == ("lstm", 5)
        assert (run.training.window, run.training.learning_rate, run.training.warmup_steps) == (64, 0.01, 50)
    assert (network.training.steps, network.budget_seconds) == (3, None)
    assert default.training.steps > 1
    assert default.budget_seconds == default_budget(default.training_tokens)


def test_an_ngram_run_takes_no_setting_of_a_network(uninterrupted: Path, tmp_path: Path) -> None:
    run = start_like(uninterrupted, tmp_path, architecture="ngram")
    order = json.loads((uninterrupted / "run" / "run.json").read_text())["training"]["ngram_order"]
    assert (run.model.architecture, run.training.ngram_order) == ("ngram", order)
    assert (run.training.steps, run.training.batch_size, run.training.window) == (1, 1, 1)


def test_a_path_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NoInputError):
        start(tmp_path, init_from=tmp_path / "nowhere")
    (tmp_path / "file").write_text("no model")
    with pytest.raises((DataError, NoInputError)):
        start(tmp_path, init_from=tmp_path / "file")


def test_random_embeddings_cannot_be_frozen(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="freeze_embeddings needs init_from"):
        start(tmp_path, options={"freeze_embeddings": True})


def test_a_model_of_conversations_is_marked_also_when_it_is_resumed_or_trained_further(tmp_path: Path) -> None:
    messages = [{"role": "user", "content": "the quick?"}, {"role": "assistant", "content": "the lazy dog"}]
    path = tmp_path / "chat.jsonl"
    path.write_text((json.dumps({"messages": messages}) + "\n") * 40, encoding="utf-8")
    chat, plain, further = tmp_path / "chat", tmp_path / "plain", tmp_path / "further"
    options: dict[str, Any] = {"steps": 20, "ngram": "off"}
    start(chat, corpus=open_corpus([str(path)], [].append), options=options, stop=at_step(10))
    resume(chat)
    start(plain, options=options)
    start(further, settings=SETTINGS, options=options, init_from=chat / "run")
    checkpoints = {folder.name: list_checkpoints(folder / "run") for folder in (chat, plain, further)}
    marks = {name: [load_model(each.directory).is_chat for each in found] for name, found in checkpoints.items()}
    assert len(marks["chat"]) > 1
    assert {name: set(each) for name, each in marks.items()} == {"chat": {True}, "plain": {False}, "further": {True}}
