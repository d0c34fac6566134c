"""PyTorch peer: training throughput of nn.LSTM, nn.GRU, nn.RNN, or a transformer in the style of nanoGPT, on random tokens.

usage: python torch_train_throughput.py ARCHITECTURE PRECISION BATCH WINDOW EMBEDDING HIDDEN LAYERS STEPS VOCABULARY HEADS
Needs: pip install torch==2.13.0 numpy. Prints one JSON line with the tokens per second. AdamW throughout.
"""

import json
import sys
import time

import torch
from torch import nn

architecture, precision = sys.argv[1:3]
batch, window, embedding, hidden, layers, steps, vocabulary, heads = (int(value) for value in sys.argv[3:11])


class Recurrent(nn.Module):
    """Embedding -> recurrent layers -> linear."""

    def __init__(self) -> None:
        super().__init__()
        layer = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}[architecture]
        self.embedding = nn.Embedding(vocabulary, embedding)
        self.recurrent = layer(embedding, hidden, num_layers=layers, batch_first=True)
        self.output = nn.Linear(hidden, vocabulary)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.output(self.recurrent(self.embedding(tokens))[0])


class Block(nn.Module):
    """Pre-norm attention and a feed-forward layer of four times the width, each with a residual connection."""

    def __init__(self) -> None:
        super().__init__()
        self.norm_1, self.norm_2 = nn.LayerNorm(hidden, bias=False), nn.LayerNorm(hidden, bias=False)
        self.qkv = nn.Linear(hidden, 3 * hidden, bias=False)
        self.projection = nn.Linear(hidden, hidden, bias=False)
        self.up = nn.Linear(hidden, 4 * hidden, bias=False)
        self.down = nn.Linear(4 * hidden, hidden, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = self.qkv(self.norm_1(x)).split(hidden, dim=2)
        q, k, v = (part.view(batch, window, heads, hidden // heads).transpose(1, 2) for part in parts)
        y = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.projection(y.transpose(1, 2).reshape(batch, window, hidden))
        return x + self.down(nn.functional.gelu(self.up(self.norm_2(x))))


class Transformer(nn.Module):
    """Token and position embeddings -> transformer blocks -> norm -> logits, tied to the embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, hidden)
        self.positions = nn.Embedding(window, hidden)
        self.blocks = nn.Sequential(*(Block() for _ in range(layers)))
        self.norm = nn.LayerNorm(hidden, bias=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.blocks(self.embedding(tokens) + self.positions.weight)
        return nn.functional.linear(self.norm(x), self.embedding.weight)


model = Transformer() if architecture == "transformer" else Recurrent()
optimizer = torch.optim.AdamW(model.parameters())


def train_step() -> None:
    x = torch.randint(0, vocabulary, (batch, window))
    y = torch.randint(0, vocabulary, (batch, window))
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bfloat16"):
        logits = model(x)
    loss = nn.functional.cross_entropy(logits.float().reshape(-1, vocabulary), y.reshape(-1))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


for _ in range(3):
    train_step()
started = time.perf_counter()
for _ in range(steps):
    train_step()
print(json.dumps({"tokens_per_second": round(batch * window * steps / (time.perf_counter() - started))}))
