"""PyTorch peer: training throughput of nn.LSTM (Embedding -> LSTM -> Linear, Adam) on random tokens.

usage: python torch_lstm_throughput.py PRECISION BATCH TIME EMBED HIDDEN VOCAB STEPS     PRECISION: float32 | bfloat16
Needs: pip install torch==2.13.0 numpy. Prints one JSON line: tokens/s and model GFLOP/s (6 x weights-in-matmuls x tokens/s).
"""

import json
import sys
import time

import torch
from torch import nn

precision = sys.argv[1]
batch, steps_per_row, embed, hidden, vocab, steps = (int(value) for value in sys.argv[2:8])


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab, embed)
        self.lstm = nn.LSTM(embed, hidden, batch_first=True)
        self.output = nn.Linear(hidden, vocab)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.output(self.lstm(self.embedding(tokens))[0])


model = Model()
optimizer = torch.optim.Adam(model.parameters())


def train_step() -> None:
    x = torch.randint(0, vocab, (batch, steps_per_row))
    y = torch.randint(0, vocab, (batch, steps_per_row))
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bfloat16"):
        logits = model(x)
    loss = nn.functional.cross_entropy(logits.float().reshape(-1, vocab), y.reshape(-1))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


for _ in range(3):
    train_step()
started = time.perf_counter()
for _ in range(steps):
    train_step()
seconds = time.perf_counter() - started
rate = batch * steps_per_row * steps / seconds
weights = 4 * (embed + hidden) * hidden + hidden * vocab
print(
    json.dumps(
        {
            "peer": "torch.nn.LSTM",
            "precision": precision,
            "tokens_per_second": round(rate),
            "gflop_per_second": round(6 * weights * rate / 1e9, 1),
        }
    )
)
