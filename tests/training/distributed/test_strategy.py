"""Two replicas compute what one device computes: on two logical CPU devices, in a separate process."""

import json
import subprocess
import sys

import pytest

from quickfox.training.distributed.strategy import single_process, tensors_sha256

SCRIPT = """
import dataclasses, json, os, sys, time

import numpy as np

from quickfox.config.model import ModelConfig
from quickfox.config.training import TrainingConfig
from quickfox.data.dataset import Tokens
from quickfox.training.tensorflow_runtime import import_tensorflow

tf = import_tensorflow()
tf.config.threading.set_intra_op_parallelism_threads(1)
tf.config.threading.set_inter_op_parallelism_threads(2)
[processor] = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(processor, [tf.config.LogicalDeviceConfiguration()] * 2)

from quickfox.training.distributed.strategy import Cluster, single_process, tensors_sha256
from quickfox.training.engine.trainer import Trainer

small = dict(vocabulary_size=3, embedding_dim=4, hidden_dim=8)
attention = dict(small, num_heads=2, context=12)
models = {
    "lstm": ModelConfig(**small),
    "gru": ModelConfig(architecture="gru", num_layers=2, **small),
    "rnn": ModelConfig(architecture="rnn", **small),
    "attention-rnn": ModelConfig(architecture="attention-rnn", **attention),
    "transformer": ModelConfig(
        architecture="transformer", tied_embeddings=True, num_layers=2, **(attention | {"embedding_dim": 8})
    ),
}
training = TrainingConfig(
    steps=36, batch_size=4, window=4, learning_rate=0.02, warmup_steps=5, weight_decay=0.1, clip_norm=1.0, dropout=0.3,
    validation_interval=12, patience=None, random_seed=1, precision="float32", threads=2,
)
generator = np.random.default_rng(0)
ids, mask = generator.integers(0, 3, 3000).astype(np.uint8), generator.random(3000) < 0.5
texts = {"all": Tokens(ids[:-400]).part(0, 2000), "masked": Tokens(ids[:-400], mask[:-400])}
devices = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
model, text = models[sys.argv[1]], texts[sys.argv[2]]
for cluster, threads in ((single_process(), 2), (Cluster(devices), 1)):
    config = dataclasses.replace(training, threads=threads)
    trainer = Trainer(model, config, text, Tokens(ids[-400:]), time.monotonic(), cluster=cluster)
    losses = [event.train_loss for event in trainer.run() if type(event).__name__ == "Validated"]
    saved = trainer.model_tensors(), trainer.training_tensors()
    resumed = Trainer(model, config, text, Tokens(ids[-400:]), time.monotonic(), cluster=cluster)
    resumed.restore(*saved, trainer.progress)
    assert tensors_sha256(saved[1]) == tensors_sha256(resumed.training_tensors())
    if cluster.replicas > 1:
        for variable in (*trainer.parameters.values(), *trainer.optimizer.slots.values()):
            first, second = devices.experimental_local_results(variable)
            assert np.array_equal(first.numpy(), second.numpy())
    print(json.dumps(losses))
"""


@pytest.mark.distributed
@pytest.mark.parametrize(
    ("architecture", "targets"),
    [
        ("lstm", "masked"),
        *(  # `.ci/run` leaves these out
            pytest.param(architecture, "all", marks=pytest.mark.slow)
            for architecture in ("lstm", "gru", "rnn", "attention-rnn", "transformer")
        ),
    ],
)
def test_two_devices_train_as_one_does_with_identical_weights(architecture: str, targets: str) -> None:
    """With dropout, state resets and ignored targets; and they restore what they have saved."""
    command = [sys.executable, "-c", SCRIPT, architecture, targets]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr
    one, two = (json.loads(line) for line in ended.stdout.splitlines())
    assert len(one) == 3
    assert two == pytest.approx(one, rel=1e-5)


def test_different_weights_have_different_digests() -> None:
    import numpy as np

    ones = np.ones(3, np.float32)
    assert tensors_sha256({"a": ones}) != tensors_sha256({"a": np.nextafter(ones, 2)})


def test_a_single_process_has_all_rows_and_exchanges_with_itself() -> None:
    cluster = single_process()
    assert list(range(8))[cluster.local_rows(8)] == list(range(8))
    assert cluster.exchange(3, 1) == [[3, 1, 0, 0]]
    assert not cluster.stop_requested
    cluster.exchange(stop=True)
    assert cluster.stop_requested
