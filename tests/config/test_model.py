"""ModelConfig: bounds, and combinations that do not form a model."""

from typing import Any

import pytest

from quickfox.config.model import ModelConfig
from quickfox.config.schema import from_dict, to_dict
from quickfox.errors import UsageError

MODEL: dict[str, Any] = {"vocabulary_size": 65, "embedding_dim": 64, "hidden_dim": 512, "num_layers": 1}


@pytest.mark.parametrize("name", MODEL)
@pytest.mark.parametrize("value", [0, -1, 2**30])
def test_values_out_of_range(name: str, value: int) -> None:
    with pytest.raises(UsageError, match=f"^{name} must be at .* not {value}$"):
        ModelConfig(**MODEL | {name: value})


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


def test_a_file_without_the_settings_of_attention_describes_a_model_without_attention() -> None:
    values = {"architecture": "lstm"} | MODEL
    assert from_dict(ModelConfig, values, "file") == ModelConfig(**MODEL)
    later = to_dict(ModelConfig(**MODEL))
    assert {"num_heads": 1, "context": None, "tied_embeddings": False}.items() <= later.items()
