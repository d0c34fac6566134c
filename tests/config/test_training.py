"""TrainingConfig and TrainingRequest: bounds, and settings that exclude each other."""

import math
from typing import Any

import pytest

from quickfox.config.schema import MAX_INTEGER, from_dict
from quickfox.config.training import TrainingConfig, TrainingRequest
from quickfox.errors import DataError, UsageError

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
    "ngram_order": 5,
}


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
        ("ngram_order", -1),
        ("ngram_order", 17),
    ],
)
def test_values_out_of_range(name: str, value: Any) -> None:
    assert getattr(TrainingConfig(**TRAINING), name) == TRAINING[name]
    with pytest.raises(UsageError, match=rf"^{name} must be .*not {value!r}$") as error:
        TrainingConfig(**TRAINING | {name: value})
    assert error.value.settings == (name,)


@pytest.mark.parametrize("replans", [((5, 90), (5, 80)), ((9, 90), (5, 80)), ((0, 90),), ((5, 4),)])
def test_replans_out_of_order(replans: tuple[tuple[int, int], ...]) -> None:
    with pytest.raises(UsageError, match="replans must be"):
        TrainingConfig(**TRAINING | {"replans": replans})


def test_the_last_replan_is_the_planned_number_of_steps() -> None:
    assert TrainingConfig(**TRAINING).planned_steps == 100
    assert TrainingConfig(**TRAINING | {"replans": ((5, 90), (9, 80))}).planned_steps == 80


@pytest.mark.parametrize("names", [("steps", "epochs"), ("steps", "budget"), ("epochs", "budget")])
def test_steps_epochs_and_budget_exclude_each_other(names: tuple[str, str]) -> None:
    with pytest.raises(UsageError, match=f"^{names[0]} and {names[1]} exclude each other"):
        TrainingRequest(**dict.fromkeys(names, 5))
    for name in names:
        TrainingRequest(**{name: 5})


@pytest.mark.parametrize("name", ["embedding_dim", "hidden_dim", "num_layers"])
def test_a_size_excludes_the_settings_it_stands_for(name: str) -> None:
    TrainingRequest(size="small", num_heads=2)
    with pytest.raises(UsageError, match=f"^size and {name} exclude each other"):
        TrainingRequest(size="small", **{name: 5})


@pytest.mark.parametrize("name", ["embedding_dim", "hidden_dim", "num_layers"])
def test_a_size_of_zero_cannot_be_requested(name: str) -> None:
    with pytest.raises(UsageError, match=f"^{name} must be at least 1, not 0$"):
        TrainingRequest(**{name: 0})


def test_configuration_from_json() -> None:
    values = TRAINING | {"patience": 3, "dropout": 0}  # JSON writes 0 for 0.0
    assert from_dict(TrainingConfig, values, "file") == TrainingConfig(**values)


def test_a_run_of_an_earlier_version_has_no_ngram_tables() -> None:
    values = {name: value for name, value in TRAINING.items() if name != "ngram_order"}
    assert from_dict(TrainingConfig, values, "file").ngram_order == 0


@pytest.mark.parametrize(("name", "value"), [("patience", True), ("dropout", False), ("dropout", "0"), ("steps", 1.5)])
def test_values_of_a_wrong_type_in_json(name: str, value: Any) -> None:
    with pytest.raises(DataError, match=f"'{name}' cannot be"):
        from_dict(TrainingConfig, TRAINING | {name: value}, "file")
