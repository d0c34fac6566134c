"""`llm train` refuses what an n-gram model cannot do, and orders that do not fit, in one line, and leaves no files."""

import importlib.util
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Llm = Callable[..., subprocess.CompletedProcess[str]]

TEXT = "the quick brown fox jumps over the lazy dog\n" * 60
NGRAM = ("--architecture", "ngram")
SMALL = ("--hidden-dim", "8", "--embedding-dim", "4", "--window", "4", "--batch-size", "4", "--threads", "2")

needs_tensorflow = pytest.mark.skipif(importlib.util.find_spec("tensorflow") is None, reason="TensorFlow not installed")


@pytest.fixture
def fox(tmp_path: Path) -> Path:
    """A folder with a corpus in it."""
    (tmp_path / "fox.txt").write_text(TEXT)
    return tmp_path


@pytest.fixture
def ngram_run(llm: Llm, fox: Path) -> Path:
    """The same folder with the run of a 4-gram model in it."""
    assert llm("train", "fox.txt", *NGRAM, "--ngram", "4", "--quiet").returncode == 0
    return fox


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*"))


def assert_refused(result: subprocess.CompletedProcess[str], status: int, message: str) -> None:
    """One line on standard error that contains `message`; standard output is empty."""
    assert (result.returncode, result.stdout) == (status, ""), result.stderr
    assert result.stderr.startswith("llm: ")
    assert result.stderr.count("\n") == 1
    assert message in result.stderr


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--ngram", "0"], 2, "--ngram must be at least 1, not 0"),
        (["--ngram", "40"], 2, "--ngram must be at most 16, not 40"),
        (["--ngram", "x"], 2, "--ngram must be auto, off or a number from 1 to 16, not 'x'"),
        (["--ngram", "off"], 2, "an n-gram model cannot be trained with --ngram off"),
        (["--hidden-dim", "8"], 2, "--hidden-dim is for networks, and architecture ngram has none: leave it out"),
        (["--size", "tiny"], 2, "--size is for networks"),
        (["--num-heads", "2"], 2, "--num-heads is for networks"),
        (["--epochs", "5"], 2, "--epochs is for networks"),
        (["--steps", "5"], 2, "--steps is for networks"),
        (["--batch-size", "5"], 2, "--batch-size is for networks"),
        (["--window", "5"], 2, "--window is for networks"),
        (["--learning-rate", "0.1"], 2, "--learning-rate is for networks"),
        (["--dropout", "0.1"], 2, "--dropout is for networks"),
        (["--patience", "2"], 2, "--patience is for networks"),
        (["--precision", "float32"], 2, "--precision is for networks"),
        (["--init-from", "nowhere"], 66, "nowhere"),
        (["--output", "fox.txt"], 73, "fox.txt"),
    ],
)
def test_an_invalid_option_is_one_line_and_leaves_no_files(
    llm: Llm, fox: Path, arguments: list[str], status: int, message: str
) -> None:
    for more in ((), ("--dry-run",)):
        assert_refused(llm("train", "fox.txt", *NGRAM, *arguments, *more), status, message)
    assert names_in(fox) == ["fox.txt"]


@pytest.mark.parametrize(
    ("text", "arguments", "status", "message"),
    [
        ("", [], 66, "few.txt"),
        ("a", [], 65, "an n-gram model needs at least 3: add text"),
        ("ab", [], 65, "an n-gram model needs at least 3: add text"),
        ("abc", ["--validation-split", "0.9"], 65, "an n-gram model needs at least 20: add text"),
        ("abcdef", ["--ngram", "7", "--validation-split", "0"], 2, "--ngram 7 is more than the 6 training tokens"),
        ("abcdefghij", ["--ngram", "10"], 2, "--ngram 10 is more than the 9 training tokens"),
    ],
)
def test_a_text_that_is_too_short_is_refused(
    llm: Llm, tmp_path: Path, text: str, arguments: list[str], status: int, message: str
) -> None:
    (tmp_path / "few.txt").write_text(text)
    assert_refused(llm("train", "few.txt", *NGRAM, *arguments), status, message)
    assert names_in(tmp_path) == ["few.txt"]


@needs_tensorflow
def test_an_order_above_the_text_is_refused_for_a_network(llm: Llm, tmp_path: Path) -> None:
    (tmp_path / "ten.txt").write_text("abcabcabca")
    result = llm("train", "ten.txt", "--ngram", "10", "--steps", "2", *SMALL)
    assert_refused(result, 2, "--ngram 10 is more than the 9 training tokens")
    assert names_in(tmp_path) == ["ten.txt"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--ngram", "5"), "--ngram is 4 in this run, not 5"),
        (("--ngram", "off"), "--ngram is 4 in this run, not off"),
        (("--architecture", "lstm"), "--architecture is ngram in this run, not lstm"),
        (("--hidden-dim", "8"), "--hidden-dim is 0 in this run, not 8"),
        (("--epochs", "2"), "--epochs cannot extend a run of architecture ngram"),
        (("--steps", "2"), "--steps cannot extend a run of architecture ngram"),
        (("--budget", "60s"), "--budget cannot extend a run of architecture ngram"),
    ],
)
def test_other_settings_are_refused_on_resume(
    llm: Llm, ngram_run: Path, options: tuple[str, ...], message: str
) -> None:
    before = names_in(ngram_run)
    assert_refused(llm("train", "--resume", "runs/fox", *options), 2, message)
    assert names_in(ngram_run) == before


def test_an_ngram_model_has_no_weights_to_start_from(llm: Llm, ngram_run: Path) -> None:
    before = names_in(ngram_run)
    for options in ((), NGRAM, ("--architecture", "lstm")):
        result = llm("train", "fox.txt", "--init-from", "runs/fox", "--output", "new", *options)
        assert_refused(result, 2, "runs/fox is an n-gram model, which has no weights to start from: leave --init-from")
    assert names_in(ngram_run) == before
