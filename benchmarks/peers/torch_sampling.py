"""PyTorch peer: sampling from Embedding -> nn.LSTM -> Linear, one token at a time, on one thread; random weights.

usage: python torch_sampling.py
Needs: pip install torch==2.13.0 numpy. Each line of standard input is a JSON object with the `length` to
sample; the response has the tokens per second, without imports and model construction.
"""

import json
import sys
import time

import torch
from torch import nn

VOCABULARY, EMBEDDING, HIDDEN = 65, 64, 512

torch.set_num_threads(1)
torch.manual_seed(0)
embedding = nn.Embedding(VOCABULARY, EMBEDDING)
lstm = nn.LSTM(EMBEDDING, HIDDEN, batch_first=True)
output = nn.Linear(HIDDEN, VOCABULARY)


@torch.no_grad()
def sample(length: int) -> list[int]:
    token, state = torch.zeros(1, 1, dtype=torch.long), None
    token_ids = []
    for _ in range(length):
        hidden, state = lstm(embedding(token), state)
        probabilities = torch.softmax(output(hidden[:, -1]), dim=-1)
        token = torch.multinomial(probabilities, 1)
        token_ids.append(token.item())
    return token_ids


for line in sys.stdin:
    length = json.loads(line)["length"]
    started = time.perf_counter()
    sample(length)
    print(json.dumps({"tokens_per_second": length / (time.perf_counter() - started)}), flush=True)
