"""The cost of the n-gram tables of a run in memory, disk space and time.

The number of n-grams of a text is unknown before they are counted. These are upper bounds: in each order at most one
for each token, and at most the number that is kept. The constants are measured on texts of 0.1 to 81 million tokens.
What imports NumPy is imported by the functions, because the help texts load this module.
"""

import dataclasses

from quickfox.config.model import ModelConfig
from quickfox.config.training import TrainingConfig
from quickfox.models.parameters import ngram_specs

_BYTES_PER_TOKEN = 20  # of the text: its id and symbol, what sorts it, its row, and the n-gram that begins there
_BYTES_PER_NGRAM = 45  # of one order, before the rarest are left out
_BYTES_PER_COUNTED_TOKEN = 80  # of the part of the text that is being counted
_BYTES_PER_WAITING_TOKEN = 80  # of the parts that other threads have counted, or are counting
_COPIES_OF_TABLES = 3  # in a checkpoint that is written, besides the tables: their bytes and those of the file
_BYTES_PER_TOKEN_OF_GATE = 75  # at most, while the tables without each block of the text are estimated
_COUNTED_PER_SECOND, _EVALUATED_PER_SECOND = 2e7, 1e7  # tokens of one order


def tables_size(model: ModelConfig, training: TrainingConfig, training_tokens: int) -> int:
    """Bytes of the n-gram tables, in memory and in a checkpoint; 0 if the run has none.

    Args:
        model, training: the decided settings.
        training_tokens: tokens of the training text.
    """
    specs = ngram_specs(dataclasses.replace(model, ngrams=_count_bounds(model, training, training_tokens)))
    return sum(spec.nbytes for spec in specs.values())


def ngram_memory(model: ModelConfig, training: TrainingConfig, training_tokens: int) -> int:
    """Peak bytes of memory of the tables, while they are counted or saved; 0 if the run has none. Args as above.

    With an n-gram gate, also of the tables without each block of the text (see `models/ngram/leave_out.py`).
    """
    from quickfox.models.ngram.counting import CHUNK_TOKENS
    from quickfox.models.ngram.kneser_ney import COUNTING_FACTOR
    from quickfox.training.planning.ngrams import MAX_NGRAMS

    if training.ngram_order == 0:
        return 0
    tokens = min(training_tokens, training.ngram_tokens)
    most = min(tokens, COUNTING_FACTOR * MAX_NGRAMS)
    ngrams: int = max(model.vocabulary_size, min(model.vocabulary_size**training.ngram_order, most))  # of an order
    threads = 1 if model.has_network else training.threads
    part = min(tokens, CHUNK_TOKENS)
    waiting = min(tokens - part, threads * CHUNK_TOKENS)
    counting = _BYTES_PER_TOKEN * tokens + _BYTES_PER_NGRAM * ngrams
    counting += _BYTES_PER_COUNTED_TOKEN * part + _BYTES_PER_WAITING_TOKEN * waiting
    tables = tables_size(model, training, training_tokens)
    gate = _gate_size(model, training, training_tokens)
    estimating_gate = gate + _BYTES_PER_TOKEN_OF_GATE * tokens if gate else 0
    return tables + max(counting, estimating_gate, _COPIES_OF_TABLES * tables + gate)


def counting_seconds(order: int, tokens: int) -> float:
    """Seconds that counting the n-grams of a text takes."""
    return tokens * order / _COUNTED_PER_SECOND


def evaluation_seconds(order: int, tokens: int) -> float:
    """Seconds that the loss of an n-gram model on a text takes."""
    return tokens * order / _EVALUATED_PER_SECOND


def _gate_size(model: ModelConfig, training: TrainingConfig, training_tokens: int) -> int:
    """Bytes of the probabilities without each block of the text, float32; 0 without an n-gram gate."""
    from quickfox.models.ngram.leave_out import BLOCKS

    return 4 * BLOCKS * sum(_count_bounds(model, training, training_tokens)) if model.ngram_gate else 0


def _count_bounds(model: ModelConfig, training: TrainingConfig, training_tokens: int) -> tuple[int, ...]:
    """The largest possible number of n-grams of each order, `ModelConfig.ngrams`."""
    from quickfox.training.planning.ngrams import MAX_NGRAMS

    most = min(training_tokens, training.ngram_tokens, MAX_NGRAMS)
    orders = range(1, training.ngram_order + 1)
    return tuple(model.vocabulary_size if order == 1 else min(model.vocabulary_size**order, most) for order in orders)
