"""Measures training throughput on random tokens: Quickfox, Keras `fit`, and PyTorch's layers if torch is installed.

usage: python benchmarks/train_throughput.py [--architecture NAME]... [--precision NAME] [--torch-python PYTHON]
       [--no-keras] [--rounds N] [--steps N]
PYTHON is an interpreter that can import torch. Keras and PyTorch provide LSTM, GRU and simple RNN layers; the peer of
the transformer is in the style of nanoGPT. Each measurement runs in its own process. Contestants alternate for N
rounds; the medians are printed, and the speed of Quickfox as a multiple of each peer.
"""

import argparse
import json
import statistics
import sys
import time
from math import prod
from pathlib import Path
from typing import Any

from measuring import report, run_json

RECURRENT_SHAPES = ((64, 100, 256, 512, 1), (32, 64, 64, 512, 1), (128, 64, 64, 512, 1))
SHAPES = {  # batch, window, embedding, hidden, layers
    "lstm": RECURRENT_SHAPES,
    "gru": RECURRENT_SHAPES,
    "rnn": RECURRENT_SHAPES,
    "transformer": ((12, 64, 128, 128, 4), (32, 128, 256, 256, 4)),
}
PRECISIONS = ("float32", "bfloat16")
HEADS = 4
VOCABULARY = 65
PEER = Path(__file__).parent / "peers" / "torch_train_throughput.py"
WARM_UP_STEPS = 3


def model_config(architecture: Any, window: int, embedding: int, hidden: int, layers: int) -> Any:
    """A Quickfox model of this shape."""
    from quickfox.config.model import ModelConfig

    has_attention = architecture in ("transformer", "attention-rnn")
    attention: dict[str, Any] = {"num_heads": HEADS, "context": window} if has_attention else {}
    return ModelConfig(
        architecture=architecture, vocabulary_size=VOCABULARY, embedding_dim=embedding, hidden_dim=hidden,
        num_layers=layers, **attention,
    )  # fmt: skip


def measure_ours(
    architecture: str, precision: Any, batch: int, window: int, embedding: int, hidden: int, layers: int, steps: int
) -> float:
    """Tokens per second of Quickfox's training step."""
    from quickfox.system.threads import available_threads
    from quickfox.training.tensorflow_runtime import start_tensorflow

    threads = available_threads()
    start_tensorflow(threads)
    import numpy as np

    from quickfox.config.training import TrainingConfig
    from quickfox.data.dataset import Tokens
    from quickfox.training.engine import trainer
    from quickfox.training.engine.events import StepsCompleted
    from quickfox.training.engine.trainer import Trainer

    trainer.hidden_kernels = lambda config: {}  # type: ignore[attr-defined]  # AdamW for all parameters, as in the peers
    ids = np.random.default_rng(0).integers(0, VOCABULARY, size=1_000_000).astype(np.uint8)
    model = model_config(architecture, window, embedding, hidden, layers)
    training = TrainingConfig(
        steps=WARM_UP_STEPS + steps, batch_size=batch, window=window, learning_rate=1e-3, warmup_steps=0,
        weight_decay=0.0, clip_norm=1.0, dropout=0.0, validation_interval=10**9, patience=None, random_seed=0,
        precision=precision, threads=threads,
    )  # fmt: skip
    for event in Trainer(model, training, Tokens(ids), Tokens(ids[:0]), time.monotonic()).run():
        if isinstance(event, StepsCompleted):
            rate = event.tokens_per_second
    return rate


def measure_keras(
    architecture: str, precision: str, batch: int, window: int, embedding: int, hidden: int, layers: int, steps: int
) -> float:
    """Tokens per second of the standard Keras model with `fit`."""
    import keras
    import numpy as np

    keras.mixed_precision.set_global_policy("mixed_bfloat16" if precision == "bfloat16" else "float32")
    layer = {"lstm": keras.layers.LSTM, "gru": keras.layers.GRU, "rnn": keras.layers.SimpleRNN}[architecture]
    model = keras.Sequential([
        keras.layers.Embedding(VOCABULARY, embedding),
        *(layer(hidden, return_sequences=True) for _ in range(layers)),
        keras.layers.Dense(VOCABULARY, dtype="float32"),
    ])  # fmt: skip
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    x = np.random.default_rng(0).integers(0, VOCABULARY, size=(batch * steps, window))
    model.fit(x[: batch * WARM_UP_STEPS], x[: batch * WARM_UP_STEPS], batch_size=batch, verbose=0)
    started = time.perf_counter()
    model.fit(x, x, batch_size=batch, verbose=0)
    return batch * window * steps / (time.perf_counter() - started)


def compare(architecture: str, options: argparse.Namespace) -> None:
    """Measures and reports all shapes and precisions of an architecture."""
    from quickfox.models.parameters import parameter_shapes

    for shape in SHAPES[architecture]:
        batch, window, embedding, hidden, layers = shape
        shapes = parameter_shapes(model_config(architecture, window, embedding, hidden, layers))
        weights = sum(prod(size) for name, size in shapes.items() if len(size) == 2 and name != "embedding.weight")
        for precision in options.precision or PRECISIONS:
            arguments = [architecture, precision, *map(str, shape), str(options.steps)]
            contestants = {"ours": [sys.executable, __file__, "--measure", "ours", *arguments]}
            if architecture != "transformer" and not options.no_keras:
                contestants["keras_fit"] = [sys.executable, __file__, "--measure", "keras", *arguments]
            if options.torch_python:
                contestants["torch"] = [options.torch_python, str(PEER), *arguments, str(VOCABULARY), str(HEADS)]
            rates: dict[str, list[float]] = {name: [] for name in contestants}
            for _ in range(options.rounds):
                for name, command in contestants.items():
                    rates[name].append(run_json(command)["tokens_per_second"])
            medians = {name: statistics.median(values) for name, values in rates.items()}
            report(
                benchmark="train_throughput", architecture=architecture, batch=batch, window=window,
                embedding=embedding, hidden=hidden, layers=layers, precision=precision, rounds=options.rounds,
                tokens_per_second={name: round(rate) for name, rate in medians.items()},
                model_gflop_per_second=round(6 * weights * medians["ours"] / 1e9),
                ours_over={name: round(medians["ours"] / rate, 2) for name, rate in medians.items() if name != "ours"},
            )  # fmt: skip


def main() -> None:
    if sys.argv[1:2] == ["--measure"]:
        _, _, contestant, architecture, precision, *numbers = sys.argv
        measure: dict[str, Any] = {"ours": measure_ours, "keras": measure_keras}
        print(json.dumps({"tokens_per_second": measure[contestant](architecture, precision, *map(int, numbers))}))
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--architecture", action="append", choices=SHAPES, help="may be repeated; default: all")
    parser.add_argument("--precision", action="append", choices=PRECISIONS, help="may be repeated; default: both")
    parser.add_argument("--no-keras", action="store_true", help="leave Keras out")
    parser.add_argument("--torch-python", help="an interpreter that can import torch")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=30)
    options = parser.parse_args()
    for architecture in options.architecture or SHAPES:
        compare(architecture, options)


if __name__ == "__main__":
    main()
