"""ModelConfig: bounds, and combinations that do not form a model."""

import json
from typing import Any

import pytest

from quickfox.config.model import ModelConfig
from quickfox.config.schema import from_dict, to_dict
from quickfox.errors import DataError, UsageError

MODEL: dict[str, Any] = {"vocabulary_size": 65, "embedding_dim": 64, "hidden_dim": 512, "num_layers": 1}
NO_NETWORK = {"architecture": "ngram", "embedding_dim": 0, "hidden_dim": 0, "num_layers": 0}


@pytest.mark.parametrize("name", MODEL)
@pytest.mark.parametrize("value", [0, -1, 2**30])
def test_values_out_of_range(name: str, value: int) -> None:
    bound = "at most" if value > 0 else "at least"
    with pytest.raises(UsageError, match=f"^{name} must be {bound} .* not {value}$") as error:
        ModelConfig(**MODEL | {name: value})
    assert error.value.settings == (name,)


@pytest.mark.parametrize("name", ["embedding_dim", "hidden_dim", "num_layers"])
def test_a_network_has_no_size_of_zero(name: str) -> None:
    with pytest.raises(UsageError, match=f"^{name} must be at least 1, not 0$"):
        ModelConfig(**MODEL | {name: 0})


@pytest.mark.parametrize(
    ("changes", "settings", "reason"),
    [
        ({"num_heads": 2}, "num_heads", "num_heads is for attention-rnn and transformer, not for lstm"),
        ({"context": 9}, "context", "context must be None for lstm, which has no attention"),
        ({"tied_embeddings": True}, "tied_embeddings", "tied_embeddings is for transformer, not for lstm"),
        (
            {"architecture": "attention-rnn", "context": 9, "tied_embeddings": True},
            "tied_embeddings",
            "not for attention-rnn",
        ),
        ({"architecture": "attention-rnn"}, "context", "context is missing"),
        ({"architecture": "attention-rnn", "context": 0}, "context", "context must be at least 1"),
        (
            {"architecture": "attention-rnn", "context": 9, "num_heads": 3},
            "num_heads hidden_dim",
            "num_heads must divide hidden_dim 512, and 3 does not",
        ),
        ({"architecture": "attention-rnn", "context": 9, "num_heads": 0}, "num_heads", "num_heads must be at least 1"),
        (
            {"architecture": "transformer", "context": 9},
            "embedding_dim hidden_dim",
            "embedding_dim of a transformer must equal its hidden_dim 512, not 64",
        ),
        ({"architecture": "ngram"}, "embedding_dim", "embedding_dim must be 0 for ngram, which has no network, not 64"),
        (NO_NETWORK | {"hidden_dim": 2}, "hidden_dim", "hidden_dim must be 0 for ngram, which has no network, not 2"),
        (NO_NETWORK | {"num_layers": 1}, "num_layers", "num_layers must be 0 for ngram, which has no network, not 1"),
        (NO_NETWORK | {"num_heads": 2}, "num_heads", "num_heads is for attention-rnn and transformer, not for ngram"),
        (NO_NETWORK | {"context": 9}, "context", "context must be None for ngram, which has no attention"),
        ({"exponents": (0.5, 1.6)}, "exponents", "exponents must be numbers from 0 to 1.5, not 1.6"),
        ({"exponents": (-0.1, 0.5)}, "exponents", "exponents must be numbers from 0 to 1.5, not -0.1"),
        ({"exponents": (float("nan"), 0.5)}, "exponents", "exponents must be numbers from 0 to 1.5, not nan"),
        ({"ngrams": (64,)}, "ngrams", "ngrams must begin with vocabulary_size 65, not 64"),
        ({"ngrams": (0,)}, "ngrams", "ngrams must begin with vocabulary_size 65, not 0"),
        ({"ngrams": (65, -1)}, "ngrams", "ngrams must be numbers from 0 to 2147483647, not -1"),
        ({"ngrams": (65, 9, 2**31)}, "ngrams", "ngrams must be numbers from 0 to 2147483647, not 2147483648"),
        ({"ngrams": (65,) * 17}, "ngrams", "ngrams must have at most 16 numbers, one for each order, not 17"),
        ({"ngram_gate": -1}, "ngram_gate", "ngram_gate must be at least 0, not -1"),
        ({"ngram_gate": 17}, "ngram_gate", "ngram_gate must be at most 16, not 17"),
        (
            {"ngrams": (65, 9), "ngram_gate": 3},
            "ngram_gate",
            "ngram_gate must be 0 or 2, the order of ngrams, not 3",
        ),
        (NO_NETWORK | {"ngram_gate": 2}, "ngram_gate", "ngram_gate must be 0 for ngram, which has no network, not 2"),
        (
            NO_NETWORK | {"ngrams": (65, 9), "ngram_gate": 2},
            "ngram_gate",
            "ngram_gate must be 0 for ngram, which has no network, not 2",
        ),
        (
            {"architecture": "transformer", "context": 9, "embedding_dim": 512, "num_heads": 512},
            "hidden_dim",
            "hidden_dim per head of a transformer must be even, not 512 / 512",
        ),
    ],
)
def test_settings_that_do_not_form_a_model(changes: dict[str, Any], settings: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason) as error:
        ModelConfig(**MODEL | changes)
    assert error.value.settings == tuple(settings.split())


def test_an_ngram_model_has_no_network() -> None:
    config = ModelConfig(**MODEL | NO_NETWORK)  # before its n-grams are counted
    assert not config.has_network
    assert config.ngrams == ()
    assert all(ModelConfig(**MODEL | {"architecture": name}).has_network for name in ("rnn", "gru", "lstm"))


@pytest.mark.parametrize("ngrams", [(65,), (65, 0), (65, 2**31 - 1, 0), (65,) * 16])
@pytest.mark.parametrize("changes", [{}, NO_NETWORK])
def test_numbers_of_ngrams(changes: dict[str, Any], ngrams: tuple[int, ...]) -> None:
    config = ModelConfig(**MODEL | changes | {"ngrams": ngrams})
    values = json.loads(json.dumps(to_dict(config)))
    assert values["ngrams"] == list(ngrams)
    assert from_dict(ModelConfig, values, "file") == config


@pytest.mark.parametrize(("ngrams", "ngram_gate"), [((), 16), ((65,), 1), ((65, 9, 0), 3), ((65, 9, 0), 0)])
def test_the_ngram_gate_has_the_order_of_the_tables(ngrams: tuple[int, ...], ngram_gate: int) -> None:
    config = ModelConfig(**MODEL | {"ngrams": ngrams, "ngram_gate": ngram_gate})
    assert from_dict(ModelConfig, json.loads(json.dumps(to_dict(config))), "file") == config


def test_a_file_of_an_earlier_version_describes_a_model_without_attention_and_ngrams() -> None:
    values = {"architecture": "lstm"} | MODEL
    assert from_dict(ModelConfig, values, "file") == ModelConfig(**MODEL)
    later = to_dict(ModelConfig(**MODEL))
    added = {"num_heads": 1, "context": None, "tied_embeddings": False, "ngrams": (), "ngram_gate": 0}
    assert added.items() <= later.items()


@pytest.mark.parametrize("ngrams", [None, 65, [65, 9.0], [65, True], [65, "9"], [65, [9]], [65, 2**63]])
def test_numbers_of_ngrams_of_a_wrong_type_in_json(ngrams: Any) -> None:
    with pytest.raises(DataError, match="'ngrams' cannot be"):
        from_dict(ModelConfig, {"architecture": "lstm"} | MODEL | {"ngrams": ngrams}, "file")
