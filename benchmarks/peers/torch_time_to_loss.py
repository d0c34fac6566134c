"""PyTorch peer: the best simple LSTM recipe that was found, trained on one text for a fixed number of seconds.

usage: python torch_time_to_loss.py TEXT HIDDEN LAYERS BATCH TIME LEARNING_RATE SECONDS EMBED DROPOUT
e.g.:  python torch_time_to_loss.py tinyshakespeare.txt 512 1 32 64 6e-3 60 64 0.1
First 90 % trains, last 10 % validates; state is carried across windows (truncated BPTT); AdamW; bfloat16 autocast where
the processor has AMX, else float32, the faster of the two; the learning rate falls linearly to 0 over the SECONDS given.
Validation is over the whole held-out text in 16 contiguous streams.
The clock starts after imports and after the text is encoded, and stops during validation, which favors this peer.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

path = sys.argv[1]
hidden, layers, batch, window = (int(value) for value in sys.argv[2:6])
peak_rate, budget = float(sys.argv[6]), float(sys.argv[7])
embed, dropout = int(sys.argv[8]), float(sys.argv[9])

torch.manual_seed(0)
has_amx = Path("/proc/cpuinfo").exists() and "amx_bf16" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
with open(path, encoding="utf-8", newline="") as file:
    text = file.read()
alphabet = sorted(set(text))
ids_of = {char: index for index, char in enumerate(alphabet)}
ids = np.array([ids_of[char] for char in text], dtype=np.int64)
cut = int(0.9 * len(ids))
train, held_out, vocab = ids[:cut], ids[cut:], len(alphabet)


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab, embed)
        self.lstm = nn.LSTM(embed, hidden, layers, batch_first=True, dropout=dropout if layers > 1 else 0.0)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(hidden, vocab)

    def forward(self, tokens, state=None):
        out, state = self.lstm(self.embedding(tokens), state)
        return self.output(self.dropout(out)), state


def streams(values: np.ndarray, rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    columns = (len(values) - 1) // rows
    return (
        torch.tensor(values[: rows * columns].reshape(rows, columns)),
        torch.tensor(values[1 : rows * columns + 1].reshape(rows, columns)),
    )


def validation_loss() -> float:
    model.eval()
    x, y = streams(held_out, 16)
    state, total = None, 0.0
    with torch.no_grad():
        for start in range(0, x.shape[1], 512):
            logits, state = model(x[:, start : start + 512], state)
            target = y[:, start : start + 512]
            total += nn.functional.cross_entropy(logits.reshape(-1, vocab), target.reshape(-1)).item() * target.shape[1]
    model.train()
    return total / x.shape[1]


model = Model()
optimizer = torch.optim.AdamW(model.parameters(), lr=peak_rate, betas=(0.9, 0.99), weight_decay=0.01)
x_all, y_all = streams(train, batch)
position, state, steps = 0, None, 0
started = time.perf_counter()
while (elapsed := time.perf_counter() - started) < budget:
    for group in optimizer.param_groups:
        group["lr"] = peak_rate * min(1.0, steps / 50) * (1 - elapsed / budget)
    if position + window > x_all.shape[1]:
        position, state = 0, None
    x, y = x_all[:, position : position + window], y_all[:, position : position + window]
    position += window
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=has_amx):
        logits, state = model(x, state)
    loss = nn.functional.cross_entropy(logits.float().reshape(-1, vocab), y.reshape(-1))
    state = tuple(part.detach() for part in state)
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    steps += 1
print(
    json.dumps(
        {
            "peer": "torch LSTM",
            "seconds": budget,
            "tokens": steps * batch * window,
            "tokens_per_second": round(steps * batch * window / budget),
            "validation_loss": round(validation_loss(), 4),
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
        }
    )
)
