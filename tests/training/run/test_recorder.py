"""What reaches the disk while a run trains: checkpoints when they are due, whatever fails meanwhile."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from fake_training import FakeTrainStep
from run_driver import outcome, resume, start

from quickfox.checkpoints.run_directory import list_checkpoint_directories, list_checkpoints
from quickfox.data.dataset import Tokens
from quickfox.errors import DivergedError, StorageError
from quickfox.files import atomic
from quickfox.tokenizers.byte_level import ByteTokenizer
from quickfox.training.engine.events import RunInterrupted
from quickfox.training.engine.validation import Validation, ValidationLoss
from quickfox.training.run.recorder import choose_prompts

pytestmark = pytest.mark.usefixtures("fake_training")


def test_a_full_disk_keeps_the_checkpoints_that_were_saved(
    uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = atomic._write

    def write_until_full(path: Path, flags: int, data: bytes) -> None:
        if path.name == "training.safetensors" and len(list_checkpoint_directories(tmp_path / "run")) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(path, flags, data)

    with monkeypatch.context() as patch:
        patch.setattr(atomic, "_write", write_until_full)
        with pytest.raises(StorageError, match="No space left"):
            start(tmp_path, checkpoint_every="10")
    assert [checkpoint.manifest.step for checkpoint in list_checkpoints(tmp_path / "run")] == [10, 20]
    assert not list((tmp_path / "run").rglob(".quickfox-*"))
    assert resume(tmp_path)[0].step == 20
    assert outcome(tmp_path) == outcome(uninterrupted)


@pytest.mark.parametrize(("bad_step", "checkpoint_every", "kept"), [(56, "40", 50), (56, "1", 55), (75, "1000", 50)])
def test_divergence_names_the_step_and_keeps_the_last_good_checkpoint(
    uninterrupted: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    bad_step: int,
    checkpoint_every: str,
    kept: int,
) -> None:
    """Detected in the next step's loss, in the weights to be saved, or in the validation loss."""
    run = FakeTrainStep.run

    def run_until_bad(step: FakeTrainStep, xs: Any, ys: Any, rates: Any, first: Any, *rest: Any) -> Any:
        is_bad = np.arange(len(rates)) + int(first) >= bad_step - 1
        return run(step, xs, ys, tf.constant(np.where(is_bad, np.float32(np.nan), rates)), first, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(FakeTrainStep, "run", run_until_bad)
        with pytest.raises(DivergedError, match=f"step {bad_step}|step {bad_step + 1}"):
            start(tmp_path, checkpoint_every=checkpoint_every)
    assert list_checkpoints(tmp_path / "run")[-1].manifest.step == kept
    resume(tmp_path)
    assert outcome(tmp_path) == outcome(uninterrupted)


def test_a_run_that_is_stopped_in_a_validation_begins_with_it_when_resumed(
    uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loss = Validation.loss

    def stop_at_second(validation: Validation, stop_requested: Callable[[], bool]) -> ValidationLoss | None:
        has_one = bool(list_checkpoints(tmp_path / "run"))
        return loss(validation, lambda: has_one)

    with monkeypatch.context() as patch:
        patch.setattr(Validation, "loss", stop_at_second)
        events = start(tmp_path)
    assert isinstance(events[-1], RunInterrupted)
    assert events[-1].step == 50
    last = list_checkpoints(tmp_path / "run")[-1].manifest
    assert (last.step, last.validation_loss) == (50, None)
    resume(tmp_path)
    assert outcome(tmp_path) == outcome(uninterrupted)


def tokens_of(documents: list[tuple[str, str]], tokenizer: ByteTokenizer) -> Tokens:
    """The tokens of prompts with completions, as a run has them."""
    ids, mask = [256], [False]
    for prompt, completion in documents:
        ids += [*prompt.encode(), *completion.encode(), 256]
        mask += [False] * len(prompt.encode()) + [True] * (len(completion.encode()) + 1)
    return Tokens(np.array(ids, tokenizer.token_dtype), np.array(mask))


def test_prompts_are_whole_words_of_the_validation_text() -> None:
    tokenizer = ByteTokenizer()
    text = "It is a truth universally acknowledged, that a single man in possession of a good fortune\n" * 20
    start, *prompts = choose_prompts(tokenizer, Tokens(tokenizer.encode(text)))
    assert tokenizer.decode(start) == "\n"
    assert len(prompts) == 2
    for prompt in map(tokenizer.decode, prompts):
        assert set(prompt.split()) <= set(text.split())
        assert len(prompt) >= 24


def test_prompts_of_a_text_without_spaces_are_whole_characters() -> None:
    tokenizer = ByteTokenizer()
    text = "天地玄黃宇宙洪荒日月盈昃辰宿列張" * 40
    _, *prompts = choose_prompts(tokenizer, Tokens(tokenizer.encode(text)))
    assert [len(tokenizer.decode(prompt)) for prompt in prompts] == [24, 24]
    assert all(tokenizer.decode(prompt) in text for prompt in prompts)


def test_prompts_of_documents_are_theirs_or_else_their_first_tokens() -> None:
    tokenizer = ByteTokenizer().with_end_of_text()
    pairs = [(f"question {number}? ", f"answer {number}") for number in range(30)]
    _, *prompts = choose_prompts(tokenizer, tokens_of(pairs, tokenizer))
    assert {tokenizer.decode(prompt) for prompt in prompts} < {question for question, _ in pairs}
    assert {int(prompt[0]) for prompt in prompts} == {256}
    plain = [("", f"The document of the number {number}.") for number in range(30)]
    _, *prompts = choose_prompts(tokenizer, tokens_of(plain, tokenizer))
    assert {tokenizer.decode(prompt) for prompt in prompts} == {"The document of the numb"}


@pytest.mark.parametrize("text", ["", "a", "ab"])
def test_a_short_validation_text_has_prompts_only_of_its_characters(text: str) -> None:
    tokenizer = ByteTokenizer()
    prompts = choose_prompts(tokenizer, Tokens(tokenizer.encode(text)))
    assert {tokenizer.decode(prompt) for prompt in prompts} <= {"\n", *text, text}
