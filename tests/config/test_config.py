"""Configurations: ranges, and reading them back from JSON without guessing."""

import dataclasses
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quickfox.config.model import ModelConfig
from quickfox.config.sampling import SamplingConfig
from quickfox.config.schema import MAX_INTEGER, from_dict, to_dict
from quickfox.config.training import TrainingConfig, TrainingRequest
from quickfox.errors import DataError, UsageError

MODEL: dict[str, Any] = {"vocabulary_size": 65, "embedding_dim": 64, "hidden_dim": 512, "num_layers": 1}
TRAINING: dict[str, Any] = {
    "steps": 100,
    "replans": (),
    "batch_size": 32,
    "window": 64,
    "learning_rate": 0.002,
    "warmup_steps": 10,
    "weight_decay": 0.1,
    "clip_norm": 1.0,
    "dropout": 0.0,
    "validation_interval": 50,
    "patience": None,
    "random_seed": 0,
    "precision": "float32",
    "threads": 2,
}


def test_a_configuration_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        ModelConfig(**MODEL).hidden_dim = 3  # type: ignore[misc]


@pytest.mark.parametrize("name", MODEL)
@pytest.mark.parametrize("value", [0, -1, 2**30])
def test_model_values_out_of_range(name: str, value: int) -> None:
    with pytest.raises(UsageError, match=f"{name.replace('_', '-')} must be at .* not {value}"):
        ModelConfig(**MODEL | {name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("steps", 0),
        ("batch_size", 0),
        ("window", 0),
        ("learning_rate", -0.1),
        ("learning_rate", math.nan),
        ("warmup_steps", -1),
        ("weight_decay", math.inf),
        ("clip_norm", 0.0),
        ("dropout", 1.0),
        ("validation_interval", 0),
        ("patience", 0),
        ("random_seed", -1),
        ("random_seed", MAX_INTEGER + 1),
        ("precision", "float8"),
        ("threads", 0),
    ],
)
def test_training_values_out_of_range(name: str, value: Any) -> None:
    assert getattr(TrainingConfig(**TRAINING), name) == TRAINING[name]
    with pytest.raises(UsageError, match=name.replace("_", "-")):
        TrainingConfig(**TRAINING | {name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("length", -1),
        ("temperature", -0.1),
        ("temperature", math.nan),
        ("temperature", math.inf),
        ("temperature", -math.inf),
        ("top_k", 0),
        ("num_samples", 0),
        ("random_seed", -1),
    ],
)
def test_sampling_values_out_of_range(name: str, value: Any) -> None:
    with pytest.raises(UsageError, match=rf"^{name.replace('_', '-')} must be at \w+ .*not {value}$"):
        SamplingConfig(**{name: value})


def test_the_extremes_of_sampling_are_allowed() -> None:
    SamplingConfig(length=0, temperature=0, top_k=2**40, random_seed=MAX_INTEGER, num_samples=1)


@pytest.mark.parametrize("names", [("steps", "epochs"), ("steps", "budget"), ("epochs", "budget")])
def test_one_measure_of_how_long_to_train_is_enough(names: tuple[str, str]) -> None:
    with pytest.raises(UsageError, match=f"--{names[0]} and --{names[1]} exclude each other"):
        TrainingRequest(**dict.fromkeys(names, 5))
    for name in names:
        TrainingRequest(**{name: 5})


@pytest.mark.parametrize("name", ["embedding_dim", "hidden_dim", "num_layers"])
def test_a_size_excludes_what_it_stands_for(name: str) -> None:
    TrainingRequest(size="small", num_heads=2)
    with pytest.raises(UsageError, match=f"--size and --{name.replace('_', '-')} exclude each other"):
        TrainingRequest(size="small", **{name: 5})


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"num_heads": 2}, "num-heads is for attention-rnn and transformer, not for lstm"),
        ({"context": 9}, "context must be left out of a lstm"),
        ({"tied_embeddings": True}, "tied-embeddings is for transformer, not for lstm"),
        ({"architecture": "attention-rnn", "context": 9, "tied_embeddings": True}, "not for attention-rnn"),
        ({"architecture": "attention-rnn"}, "context is missing"),
        ({"architecture": "attention-rnn", "context": 0}, "context must be at least 1"),
        ({"architecture": "attention-rnn", "context": 9, "num_heads": 3}, "num-heads must divide hidden-dim 512"),
        ({"architecture": "attention-rnn", "context": 9, "num_heads": 0}, "num-heads must be at least 1"),
        ({"architecture": "transformer", "context": 9}, "embedding-dim of a transformer is its hidden-dim, 512"),
        (
            {"architecture": "transformer", "context": 9, "embedding_dim": 512, "num_heads": 512},
            "hidden-dim must be an even number for each of a transformer's heads",
        ),
    ],
)
def test_models_that_do_not_fit_together(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        ModelConfig(**MODEL | changes)


def test_a_file_from_before_attention_means_a_model_without() -> None:
    values = {"architecture": "lstm"} | MODEL
    assert from_dict(ModelConfig, values, "file") == ModelConfig(**MODEL)
    later = to_dict(ModelConfig(**MODEL))
    assert {"num_heads": 1, "context": None, "tied_embeddings": False}.items() <= later.items()


@given(
    st.builds(
        ModelConfig,
        vocabulary_size=st.integers(1, 2**24),
        embedding_dim=st.integers(1, 2**16),
        hidden_dim=st.integers(1, 2**16),
        num_layers=st.integers(1, 64),
    )
)
def test_round_trip_through_json(config: ModelConfig) -> None:
    assert from_dict(ModelConfig, json.loads(json.dumps(to_dict(config))), "file") == config


def test_training_configuration_from_json() -> None:
    values = TRAINING | {"patience": 3, "dropout": 0}  # JSON writes 0 for 0.0
    assert from_dict(TrainingConfig, values, "file") == TrainingConfig(**values)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"more": 1}, "unknown setting 'more'"),
        ({"hidden_dim": "512"}, "'hidden_dim' cannot be '512'"),
        ({"hidden_dim": 512.0}, "'hidden_dim' cannot be 512.0"),
        ({"hidden_dim": True}, "'hidden_dim' cannot be True"),
        ({"hidden_dim": None}, "'hidden_dim' cannot be None"),
        ({"hidden_dim": [512]}, "'hidden_dim' cannot be"),
        ({"hidden_dim": 10**9}, "hidden-dim must be at most"),
        ({"architecture": "oracle"}, "'architecture' cannot be 'oracle'"),
        ({"architecture": 1}, "'architecture' cannot be 1"),
    ],
)
def test_model_configurations_refused(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(DataError, match=f"^some/config.json: .*{reason}"):
        from_dict(ModelConfig, {"architecture": "lstm"} | MODEL | changes, "some/config.json")


@pytest.mark.parametrize(("name", "value"), [("patience", True), ("dropout", False), ("dropout", "0"), ("steps", 1.5)])
def test_training_configurations_refused(name: str, value: Any) -> None:
    with pytest.raises(DataError, match=f"'{name}' cannot be"):
        from_dict(TrainingConfig, TRAINING | {name: value}, "file")


@pytest.mark.parametrize("name", MODEL)
def test_nothing_is_filled_in(name: str) -> None:
    values = {"architecture": "lstm"} | MODEL
    del values[name]
    with pytest.raises(DataError, match=f"setting '{name}' is missing"):
        from_dict(ModelConfig, values, "file")


@pytest.mark.parametrize("values", [None, [], "lstm", 3])
def test_only_an_object_is_a_configuration(values: Any) -> None:
    with pytest.raises(DataError, match="expected a JSON object"):
        from_dict(ModelConfig, values, "file")
