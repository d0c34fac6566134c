"""Runs on disk with random weights, as training leaves them, made without training."""

from pathlib import Path
from typing import Any

from quickfox.checkpoints.checkpoint import ModelBundle, save_checkpoint
from quickfox.checkpoints.run_directory import TOKENIZER_FILE, TOKENS_FILE, checkpoint_directory
from quickfox.config.model import ModelConfig
from quickfox.data.corpus_writer import encode_corpus
from quickfox.data.dataset import remove_tokens
from quickfox.data.encoding import Split
from quickfox.text.corpus import open_corpus
from quickfox.text.vocabulary import Vocabulary
from quickfox.tokenizers.character import CharacterTokenizer
from quickfox.tokenizers.serialization import format_tokenizer, tokenizer_digest
from quickfox.training.engine.events import CompletedStep, Sample, Validated
from quickfox.training.run.dataset import describe_corpus
from quickfox.training.run.history import record_event, record_steps
from quickfox.training.run.record import RunRecord, current_versions, write_record
from toy_models import random_parameters, training_config

TEXT = "The quick brown fox jumps over the lazy dog.\nIn 1815, she said: <script>alert('fox')</script> & so on!\n" * 30


def write_run(
    folder: Path,
    name: str,
    text: str = TEXT,
    losses: tuple[float | None, ...] = (2.5, 2.0, 1.9),
    split: float = 0.2,
    hidden_dim: int = 6,
    left_out: str = "",
    samples: tuple[Sample, ...] = (Sample("<b>prompt</b>", "<i>text</i>"),),
) -> Path:
    """Writes a run with these validation losses, one for each ten steps, and a checkpoint at its last step.

    The model does not know the characters of `left_out`.
    """
    run = folder / name
    steps = 10 * max(1, len(losses))
    run.mkdir()
    source = folder / "corpus <em>.txt"
    source.write_text(text, encoding="utf-8")
    tokenizer = CharacterTokenizer(Vocabulary(tuple(sorted({*text} - {*left_out}))), unknown_probability=0.1)
    model = ModelConfig(vocabulary_size=tokenizer.vocabulary_size, embedding_dim=4, hidden_dim=hidden_dim)
    corpus = open_corpus([str(source)], [].append)
    training = training_config(steps=steps, validation_interval=10)
    held_out = Split.of(corpus, split, training.random_seed) if split else None
    encoded = encode_corpus(corpus, tokenizer, run / TOKENS_FILE, held_out)
    remove_tokens(run / TOKENS_FILE)
    (run / TOKENIZER_FILE).write_bytes(format_tokenizer(tokenizer))
    record = RunRecord(
        model=model,
        training=training,
        budget_seconds=None,
        validation_split=split,
        corpus=describe_corpus(corpus, encoded, None),
        vocabulary_sha256=tokenizer_digest(tokenizer),
        checkpoint_every="3m",
        versions=current_versions(),
    )
    write_record(run, record)
    for number, loss in enumerate(losses, 1):
        made = [CompletedStep(step, 3.0 - 0.01 * step, 0.01) for step in range(10 * number - 9, 10 * number + 1)]
        record_steps(run, made, float(number))
        record_event(run, validated(10 * number, steps, loss, samples))
    bundle = ModelBundle(
        model, tokenizer, random_parameters(model, scale=0.3), steps, losses[-1] if losses else None, {}
    )
    save_checkpoint(checkpoint_directory(run, steps), bundle, None)
    return run


def validated(step: int, total_steps: int, loss: float | None, samples: tuple[Sample, ...]) -> Validated:
    """A validation of a run."""
    values: dict[str, Any] = {"network_loss": None, "best_validation_loss": loss, "is_best": True}
    return Validated(
        step=step,
        total_steps=total_steps,
        epoch=step / 20,
        tokens=32 * step,
        train_loss=2.0,
        validation_loss=loss,
        tokens_per_second=1e4,
        learning_rate=0.01,
        seconds=step / 10,
        samples=samples,
        **values,
    )
