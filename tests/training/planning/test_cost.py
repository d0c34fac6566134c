"""Cost estimates: examples worked by hand, and monotonicity in every setting. No run is measured here."""

import dataclasses
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quickfox.config.model import ATTENTION_ARCHITECTURES, Architecture, ModelConfig
from quickfox.config.training import TrainingConfig
from quickfox.errors import CannotCreateError, StorageError, UsageError
from quickfox.models.parameters import parameter_count
from quickfox.training.engine.optimizer import NEWTON_SCHULZ
from quickfox.training.planning.cost import (
    BASE_BYTES,
    ORTHOGONALIZATION_STEPS,
    Cost,
    check_disk_space,
    check_memory,
    checkpoints_size,
    estimate_cost,
    operations_per_step,
    training_memory,
    update_operations,
)
from toy_models import NETWORK_ARCHITECTURES, training_config

TRAINING = training_config(steps=100, learning_rate=0.01, validation_interval=50, threads=1)
TOKENS = 3200  # of the training text


def model_of(architecture: Architecture, **settings: Any) -> ModelConfig:
    values = {"vocabulary_size": 65, "embedding_dim": 32, "hidden_dim": 32, **settings}
    context = 16 if architecture in ATTENTION_ARCHITECTURES else None
    return ModelConfig(architecture=architecture, **{"context": context, **values})


def memory_of(model: ModelConfig, training: TrainingConfig = TRAINING, **settings: Any) -> int:
    return training_memory(model, training, **{"training_tokens": TOKENS, **settings})


def disk_of(model: ModelConfig, training: TrainingConfig = TRAINING, **settings: Any) -> int:
    return checkpoints_size(model, training, **{"training_tokens": TOKENS, **settings})


def cost_of(model: ModelConfig, training: TrainingConfig = TRAINING, **settings: Any) -> Cost:
    return estimate_cost(
        model, training, **{"training_tokens": TOKENS, "validation_tokens": 0, "flops": 1e10, **settings}
    )


def test_memory_of_a_simple_network_by_hand() -> None:
    model = model_of("rnn", vocabulary_size=3, embedding_dim=4, hidden_dim=16)
    parameters = 3 * 4 + (4 * 16 + 16 * 16 + 16) + (16 * 3 + 3)
    per_token = 3 * 2 * 16 + 1.5 * 3 + 1.5 * 3  # a gate, and one for the output; logits; one-hot vectors
    graph = 8 * 500_000  # a layer's eight time steps
    validation = 64 * 8 * 5 * 3  # segments, tokens of a window, copies of the logits
    batches = dataclasses.replace(TRAINING, batch_size=512)
    assert memory_of(model) == round(BASE_BYTES + graph + 4 * (9 * parameters + validation))
    assert memory_of(model, batches) == round(BASE_BYTES + graph + 4 * (9 * parameters + 512 * 8 * per_token))


def test_a_vocabulary_larger_than_a_microbatch_uses_no_lookup() -> None:
    microbatches = dataclasses.replace(TRAINING, batch_size=256, threads=64)
    shorter, longer = (dataclasses.replace(microbatches, window=window) for window in (15, 16))  # 60 and 64 tokens

    def increase(vocabulary_size: int) -> int:
        model = model_of("rnn", vocabulary_size=vocabulary_size)
        return memory_of(model, longer) - memory_of(model, shorter)

    assert increase(64) - increase(65) == pytest.approx(4 * 256 * 16 * 1.5 * 64, rel=0.01)


def test_the_logits_of_a_validation_are_bounded() -> None:
    small, large = (model_of("rnn", vocabulary_size=vocabulary_size) for vocabulary_size in (2**16, 2**17))
    parameters = [9 * parameter_count(model) for model in (small, large)]
    assert memory_of(large) - memory_of(small) == 4 * (parameters[1] - parameters[0])


def test_checkpoints_by_hand() -> None:
    model = model_of("transformer", num_layers=2)
    cache = 2 * 2 * 4 * 16 * 32  # keys and values, layers, rows, context, units
    assert disk_of(model) == 4 * 4 * (3 * parameter_count(model) + cache)


def test_update_operations_by_hand() -> None:
    model = model_of("rnn", embedding_dim=8)
    input_kernel = 4 * 8 * 8 * 32 + 2 * 8**3  # per iteration: x x^T and the last product; g^2
    recurrent_kernel = 4 * 32**3 + 2 * 32**3
    assert update_operations(model) == 1800 * parameter_count(model) + 2 * (input_kernel + recurrent_kernel)


def test_orthogonalization_steps_are_those_of_the_optimizer() -> None:
    assert len(NEWTON_SCHULZ) == ORTHOGONALIZATION_STEPS


def test_time_by_hand() -> None:
    cost = cost_of(model_of("lstm"), elapsed_seconds=3.0)
    assert cost.epochs == 1.0
    assert cost.seconds_per_epoch == pytest.approx(TOKENS / cost.tokens_per_second)
    start_and_end = 3.0 + 2.5 + 0.8 + 0.8 + 1.2e-7 * cost.parameters
    assert cost.seconds == pytest.approx(start_and_end + cost.seconds_per_epoch)
    assert cost_of(model_of("lstm"), flops=2e10).tokens_per_second == pytest.approx(2 * cost.tokens_per_second)


def test_validating_a_token_takes_a_third_of_the_time() -> None:
    without, with_two = (cost_of(model_of("gru"), validation_tokens=tokens) for tokens in (0, 1600))
    assert with_two.seconds - without.seconds == pytest.approx(without.seconds_per_epoch / 3)


def test_a_budget_determines_the_time() -> None:
    assert cost_of(model_of("lstm"), budget_seconds=60.0, elapsed_seconds=3.0).seconds == 60.0


@pytest.mark.parametrize("architecture", NETWORK_ARCHITECTURES)
def test_parameters_are_counted(architecture: Architecture) -> None:
    model = model_of(architecture)
    assert cost_of(model).parameters == parameter_count(model)


@pytest.mark.parametrize("architecture", NETWORK_ARCHITECTURES)
def test_workers_divide_the_tokens_but_not_the_weights(architecture: Architecture) -> None:
    model, training = model_of(architecture), dataclasses.replace(TRAINING, batch_size=64)
    single, divided = operations_per_step(model, training), operations_per_step(model, training, workers=4)
    assert single < divided < 4 * single
    assert BASE_BYTES < memory_of(model, training, workers=4) < memory_of(model, training)


LARGER = {"hidden_dim": 64, "num_layers": 2, "vocabulary_size": 130}


@given(
    architecture=st.sampled_from(NETWORK_ARCHITECTURES),
    setting=st.sampled_from([*LARGER, "context", "batch_size", "window"]),
    batch_size=st.integers(1, 256),
    window=st.integers(1, 256),
)
def test_memory_and_time_increase_with_every_setting(
    architecture: Architecture, setting: str, batch_size: int, window: int
) -> None:
    model, training = model_of(architecture), dataclasses.replace(TRAINING, batch_size=batch_size, window=window)
    if setting in LARGER:
        wider = {"embedding_dim": 64} if setting == "hidden_dim" and architecture == "transformer" else {}
        larger = dataclasses.replace(model, **{setting: LARGER[setting]}, **wider), training
    elif setting == "context":
        larger = dataclasses.replace(model, context=model.context and 2 * model.context), training
    else:
        larger = model, dataclasses.replace(training, **{setting: 2 * getattr(training, setting)})
    if setting == "vocabulary_size" and batch_size * window < LARGER[setting]:
        return  # the lookup may no longer apply, which is less work
    if larger == (model, training):
        return  # without attention there is no context
    assert memory_of(*larger) > memory_of(model, training)
    assert operations_per_step(*larger) > operations_per_step(model, training)
    assert disk_of(*larger) >= disk_of(model, training)


SMALL_MODEL = ModelConfig(vocabulary_size=3, embedding_dim=4, hidden_dim=16)
SMALL_TRAINING = training_config()


def have_memory(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 1, "SC_PHYS_PAGES": size}.__getitem__)


def have_disk(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    usage = shutil.disk_usage("/")._replace(free=free)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)


def test_a_small_model_fits(tmp_path: Path) -> None:
    check_memory(SMALL_MODEL, SMALL_TRAINING, training_tokens=TOKENS)
    check_disk_space(tmp_path, SMALL_MODEL, SMALL_TRAINING, training_tokens=TOKENS)


def test_a_byte_too_little_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    needed = memory_of(SMALL_MODEL, SMALL_TRAINING)
    have_memory(monkeypatch, needed)
    check_memory(SMALL_MODEL, SMALL_TRAINING, training_tokens=TOKENS)
    have_memory(monkeypatch, needed - 1)
    with pytest.raises(UsageError, match=r"for 1,\d\d\d parameters on batches of 4 x 8 tokens, .* or window$"):
        check_memory(SMALL_MODEL, SMALL_TRAINING, training_tokens=TOKENS)


def test_workers_need_memory_for_their_shard_of_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    large = dataclasses.replace(SMALL_TRAINING, batch_size=2**16)
    have_memory(monkeypatch, memory_of(SMALL_MODEL, large) - 1)
    with pytest.raises(UsageError, match="batches of 65536 x 8 tokens"):
        check_memory(SMALL_MODEL, large, training_tokens=TOKENS)
    check_memory(SMALL_MODEL, large, workers=4, training_tokens=TOKENS)


def test_the_largest_settings_are_refused_in_one_line() -> None:
    model = ModelConfig(vocabulary_size=2**24, embedding_dim=2**16, hidden_dim=2**16, num_layers=64)
    with pytest.raises(UsageError, match="GiB") as caught:
        check_memory(model, dataclasses.replace(SMALL_TRAINING, batch_size=2**16, window=2**10), training_tokens=TOKENS)
    assert "\n" not in str(caught.value)


def test_too_little_disk_space_for_the_checkpoints_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    three_checkpoints = 3 * 3 * 4 * parameter_count(SMALL_MODEL)  # weights and two moments each; four are needed
    have_disk(monkeypatch, three_checkpoints)
    with pytest.raises(StorageError, match="free some space") as caught:
        check_disk_space(tmp_path, SMALL_MODEL, SMALL_TRAINING, training_tokens=TOKENS)
    assert str(tmp_path) in str(caught.value)
    have_disk(monkeypatch, 2 * three_checkpoints)
    check_disk_space(tmp_path, SMALL_MODEL, SMALL_TRAINING, training_tokens=TOKENS)


def test_disk_space_of_a_missing_directory_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CannotCreateError, match="missing"):
        check_disk_space(tmp_path / "missing", SMALL_MODEL, SMALL_TRAINING, training_tokens=TOKENS)


def test_checkpoints_include_the_key_value_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = ModelConfig(
        architecture="transformer", vocabulary_size=3, embedding_dim=16, hidden_dim=16, num_layers=2, context=1024
    )
    training = dataclasses.replace(SMALL_TRAINING, window=1, batch_size=64)
    have_disk(monkeypatch, 4 * 4 * 2 * 2 * 64 * 1024 * 16)  # four checkpoints of keys and values in two layers
    with pytest.raises(StorageError, match="free some space"):
        check_disk_space(tmp_path, model, training, training_tokens=TOKENS)
    check_disk_space(tmp_path, dataclasses.replace(model, context=8), training, training_tokens=TOKENS)
