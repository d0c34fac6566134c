"""Python API: load, train and resume, and the methods of a model."""

import importlib.util
import math
import re
import shutil
from collections.abc import Generator
from pathlib import Path

import pytest

import quickfox
from quickfox import errors
from quickfox.api import Model, _best_model, run_name
from quickfox.config.sampling import SamplingConfig
from quickfox.errors import CannotCreateError, DataError, NoInputError, UsageError
from quickfox.evaluation.memorization import CopyIndex
from quickfox.training.engine.events import (
    Event,
    NgramsEstimated,
    Replanned,
    RunFinished,
    RunStarted,
    StepsCompleted,
    Validated,
)


@pytest.fixture(scope="module")
def model(model_directory: Path) -> Model:
    return quickfox.load(model_directory)


def test_public_names_of_the_package() -> None:
    exceptions = {
        name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)
    }
    assert set(quickfox.__all__) == {"__version__", "Model", "load", "resume", "train", *exceptions}
    assert set(quickfox.__all__) <= set(dir(quickfox))
    assert quickfox.Model is Model
    assert all(getattr(quickfox, name) is getattr(errors, name) for name in exceptions)
    with pytest.raises(AttributeError, match="no attribute 'fit'"):
        quickfox.fit  # noqa: B018


def test_a_text_starts_with_its_seed_and_has_the_requested_length(model: Model) -> None:
    text = model.generate("the fox", length=30)
    assert text.startswith("the fox")
    assert len(text) == len("the fox") + 30
    assert len(model.generate("the fox", length=30, echo=False)) == 30


def test_a_random_seed_determines_the_text_and_without_one_texts_differ(model: Model) -> None:
    first, again = (model.generate("a", length=40, random_seed=5) for _ in range(2))
    assert first == again
    assert model.generate("a", length=40) != model.generate("a", length=40)


def test_num_samples_returns_a_list_whose_items_do_not_depend_on_its_length(model: Model) -> None:
    three = model.generate("a", length=20, random_seed=5, num_samples=3)
    assert three[:1] == model.generate("a", length=20, random_seed=5, num_samples=1)
    assert three[0] == model.generate("a", length=20, random_seed=5)
    assert len(set(three)) == 3


def test_sampling_options_are_applied(model: Model) -> None:
    greedy = model.generate("a", length=40, temperature=0)
    assert model.generate("a", length=40, top_k=1, random_seed=9) == greedy
    assert model.generate("a", length=40, temperature=1e-6, random_seed=9) == greedy
    with pytest.raises(UsageError, match="top_k must be at least 1, not 0"):
        model.generate("a", top_k=0)
    with pytest.raises(TypeError, match="lenght"):
        model.generate("a", lenght=3)


def test_precedence_of_options_over_the_settings_of_the_model_over_defaults(model: Model) -> None:
    assert model.sampling_config().temperature == 0.8
    assert model.sampling_config(temperature=None).temperature == 0.8
    assert model.sampling_config(temperature=0.5).temperature == 0.5
    assert model.sampling_config().length == 500


def test_an_empty_seed_starts_from_a_newline_that_is_not_output(model: Model) -> None:
    assert "\n" + model.generate("", length=30, random_seed=1) == model.generate("\n", length=30, random_seed=1)


def test_unknown_characters_are_replaced_omitted_or_refused(model: Model) -> None:
    with pytest.warns(UserWarning, match=r"left out 2 characters .*'é' \(U\+00E9\)"):
        assert model.generate("aéé", length=0, unknown="skip") == "a"
    with pytest.warns(UserWarning, match="replaced 'é' by 'e'"):
        assert model.generate("aé", length=0) == "ae"
    with pytest.raises(DataError, match=r"U\+00E9"):
        model.generate("aé", length=0, unknown="error")


def test_a_stream_yields_the_same_text_token_by_token(model: Model) -> None:
    config = model.sampling_config(length=25, random_seed=3)
    texts = list(model.stream(model.read_prompt("fox"), config))
    assert len(texts) == 25
    assert "fox" + "".join(texts) == model.generate("fox", length=25, random_seed=3)


def test_beam_search_and_a_copy_index_exclude_each_other(model: Model) -> None:
    with pytest.raises(UsageError, match="num_beams and max_copy exclude each other: beam search does not sample"):
        model.complete(model.read_prompt("a"), SamplingConfig(num_beams=2), copy_index=CopyIndex(["fox"], 2))


def test_an_unknown_treatment_of_unknown_characters_is_refused(model: Model) -> None:
    with pytest.raises(UsageError, match="unknown must be one of fold, skip, error, not 'typo'"):
        model.generate("a", unknown="typo")


def test_evaluating_measures_every_character_but_the_first(model: Model) -> None:
    evaluation = model.evaluate("the quick brown fox")
    assert evaluation.tokens == len("the quick brown fox") - 1
    assert evaluation.perplexity == pytest.approx(math.exp(evaluation.nats_per_token))
    assert model.evaluate(["the quick", " brown fox"]) == evaluation
    with pytest.raises(NoInputError):
        model.evaluate("")


def test_load_refuses_a_path_that_is_not_a_model(tmp_path: Path) -> None:
    with pytest.raises(NoInputError):
        quickfox.load(tmp_path / "nowhere")
    with pytest.raises(DataError):
        quickfox.load(tmp_path)


def test_load_of_a_run_skips_a_damaged_checkpoint_with_a_warning(tmp_path: Path, model_directory: Path) -> None:
    for name in ("step-00000001", "step-00000002"):
        shutil.copytree(model_directory, tmp_path / "run" / "checkpoints" / name)
    assert quickfox.load(tmp_path / "run").validation_loss == 2.5
    weights = quickfox.load(tmp_path / "run").path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4])
    with pytest.warns(UserWarning, match=rf"^{re.escape(str(weights))}.* instead$"):
        assert quickfox.load(tmp_path / "run").path != weights.parent


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("corpus.txt", "corpus"),
        ("logs/access.log.gz", "access"),
        ("-", "stdin"),
        ("texts/*.txt", "texts"),
        ("texts/**/a?.txt", "texts"),
        ("v1.0", "v1.0"),
        ("v1.0/", "v1.0"),
    ],
)
def test_name_of_a_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, source: str, name: str) -> None:
    (tmp_path / "v1.0").mkdir()
    monkeypatch.chdir(tmp_path)
    assert run_name(source) == name


@pytest.mark.skipif(importlib.util.find_spec("tensorflow") is None, reason="TensorFlow not installed")
def test_train_returns_the_best_model_and_reports_events(tmp_path: Path) -> None:
    corpus = tmp_path / "fox.txt"
    corpus.write_text("the quick brown fox jumps over the lazy dog\n" * 40)
    options = {"steps": 6, "hidden_dim": 8, "embedding_dim": 4, "window": 4, "batch_size": 4, "random_seed": 1}
    events: list[Event] = []
    model = quickfox.train(corpus, output=tmp_path / "run", on_event=events.append, threads=2, **options)
    assert isinstance(events[0], RunStarted)
    assert isinstance(events[-1], RunFinished)
    assert model.path == events[-1].checkpoint
    assert model.validation_loss == min(e.validation_loss for e in events if isinstance(e, Validated))
    assert len(model.generate("the", length=10)) == 13
    with pytest.raises(CannotCreateError):
        quickfox.train([corpus], output=tmp_path / "run", threads=2, **options)


def test_an_ngram_model_is_trained_loaded_resumed_and_used(tmp_path: Path) -> None:
    corpus = tmp_path / "fox.txt"
    corpus.write_text("the quick brown fox jumps over the lazy dog\n" * 40)
    events: list[Event] = []
    model = quickfox.train(corpus, output=tmp_path / "run", on_event=events.append, architecture="ngram", ngram=5)
    assert [type(event) for event in events] == [RunStarted, NgramsEstimated, Validated, StepsCompleted, RunFinished]
    assert model.validation_loss == events[1].loss < 0.2
    assert model.generate("the quick", length=10, temperature=0) == "the quick brown fox"
    assert model.evaluate("the quick brown fox").nats_per_token < 1
    likely, unlikely = model.score(["the quick brown fox", "xof nworb kciuq eht"])
    assert likely.bits_per_character < unlikely.bits_per_character
    again = quickfox.load(tmp_path / "run")
    assert again.path == model.path
    assert again.generate("the", length=30, random_seed=1) == model.generate("the", length=30, random_seed=1)
    with pytest.warns(UserWarning, match="is finished"):
        assert quickfox.resume(tmp_path / "run", ngram=5).path == model.path
    with pytest.raises(UsageError, match="ngram is 5 in this run, not 4"):
        quickfox.resume(tmp_path / "run", ngram=4)
    for export_format in ("huggingface", "gguf", "keras"):
        with pytest.raises(UsageError, match="architecture ngram, which has no network to export"):
            model.export(tmp_path / "export", export_format)


def test_settings_of_a_network_are_refused_for_an_ngram_model(tmp_path: Path) -> None:
    corpus = tmp_path / "fox.txt"
    corpus.write_text("the quick brown fox\n" * 40)
    for options in ({"hidden_dim": 8}, {"ngram": "off"}, {"ngram": 0}, {"ngram": 17}, {"steps": 3}):
        with pytest.raises(UsageError, match=next(iter(options))):
            quickfox.train(corpus, output=tmp_path / "run", architecture="ngram", **options)
    assert not (tmp_path / "run").exists()


def test_a_failing_callback_ends_the_run_at_once() -> None:
    is_closed = False

    def events() -> Generator[Event]:
        nonlocal is_closed
        try:
            yield Replanned(1, 2)
        finally:
            is_closed = True

    run = events()

    def fail(_event: Event) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        _best_model(run, fail)
    assert is_closed


def test_train_refuses_options_that_do_not_exist(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="hiden_dim"):
        quickfox.train(tmp_path, hiden_dim=8)
