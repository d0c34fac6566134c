"""Keras peer: sampling from Embedding -> stateful LSTM -> Dense, the model called on one id at a time; random weights.

usage: python keras_sampling.py [LENGTH]
Needs: pip install tensorflow==2.21.0. With LENGTH, writes LENGTH characters, each as soon as it is sampled, and
ends; this favors the peer, because it loads no model. Without LENGTH, each line of standard input is a JSON object with the
`length` to sample; the response has the tokens per second, without imports and model construction.
"""

import json
import os
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import tensorflow as tf

VOCABULARY, EMBEDDING, HIDDEN = 65, 64, 512
CHARACTERS = [chr(ord(" ") + token_id) for token_id in range(VOCABULARY)]

model = keras.Sequential(
    [
        keras.layers.Input(batch_shape=(1, 1), dtype="int32"),
        keras.layers.Embedding(VOCABULARY, EMBEDDING),
        keras.layers.LSTM(HIDDEN, stateful=True),
        keras.layers.Dense(VOCABULARY),
    ]
)


def sample(length: int):
    token_id = 0
    for _ in range(length):
        logits = model(tf.constant([[token_id]]))
        token_id = tf.random.categorical(logits, 1)[0, 0].numpy()
        yield CHARACTERS[token_id]


if len(sys.argv) > 1:
    for character in sample(int(sys.argv[1])):
        print(character, end="", flush=True)
else:
    for line in sys.stdin:
        length = json.loads(line)["length"]
        started = time.perf_counter()
        text = "".join(sample(length))
        print(json.dumps({"tokens_per_second": length / (time.perf_counter() - started)}), flush=True)
