"""Invalid options and files: each case gives one line of error and its exit status, and leaves no files behind."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Llm = Callable[..., subprocess.CompletedProcess[str]]

TOO_LONG = "x" * 5000
MANY_DIGITS = "9" * 5000
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="streams, devices and modes of POSIX")


def assert_refused(result: subprocess.CompletedProcess[str], status: int, message: str = "") -> None:
    """One line on standard error that contains `message`; standard output is empty."""
    assert (result.returncode, result.stdout) == (status, "")
    assert result.stderr.startswith("llm: ")
    assert result.stderr.count("\n") == 1
    assert message in result.stderr


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# Options at and beyond their bounds.


@pytest.mark.parametrize(
    ("option", "values"),
    [
        ("--hidden-dim", ["0", "-1", "65537", "abc", "", " ", "1e3", MANY_DIGITS]),
        ("--embedding-dim", ["0", "65537"]),
        ("--num-layers", ["0", "65"]),
        ("--batch-size", ["0", "-1", "65537"]),
        ("--window", ["0", "-1", "1025"]),
        ("--learning-rate", ["0", "-1", "10.1", "inf", "nan", ""]),
        ("--dropout", ["-0.1", "1", "nan"]),
        ("--steps", ["0", "-1", "1.5", "1099511627777", MANY_DIGITS]),
        ("--epochs", ["0", "0.0001", "nan", "inf", "1e13"]),
        ("--budget", ["0", "1ms", "1e300", "-5", "", "99999999999999h", MANY_DIGITS]),
        ("--validation-split", ["-0.1", "0.91", "1", "nan"]),
        ("--threads", ["0", "-1", "1025", "abc"]),
        ("--random-seed", ["-1", "9223372036854775808", "1.0"]),
        ("--patience", ["0", "-1"]),
        ("--checkpoint-every", ["0", "0s", "0.0000001s", "-1", "x", "", "9" * 400, "9" * 400 + "h", MANY_DIGITS]),
        ("--precision", ["float16", ""]),
        ("--ngram", ["0", "-1", "17", "1.5", "x", "", " ", "Off", MANY_DIGITS]),
        ("--architecture", ["", "LSTM"]),
    ],
)
def test_train_refuses_a_value_beyond_its_bounds(llm: Llm, tmp_path: Path, option: str, values: list[str]) -> None:
    (tmp_path / "corpus.txt").write_text("some text\n" * 100)
    for value in values:
        result = llm("train", "corpus.txt", option, value)
        assert_refused(result, 2, option if option in result.stderr else repr(value))
    assert names_in(tmp_path) == ["corpus.txt"]


@pytest.mark.parametrize(
    ("option", "values"),
    [
        ("--temperature", ["-1e-9", "nan", "inf", "", "warm"]),
        ("--top-k", ["0", "-1", "1099511627777", "x"]),
        ("--length", ["-1", "1099511627777", "1.5", MANY_DIGITS]),
        ("--num-samples", ["0", "-1", "1048577"]),
        ("--random-seed", ["-1", "9223372036854775808"]),
    ],
)
def test_generate_refuses_a_value_beyond_its_bounds(
    llm: Llm, model_directory: Path, option: str, values: list[str]
) -> None:
    for value in values:
        assert_refused(llm("generate", "--model", model_directory, "--seed", "a", option, value), 2, option)


@pytest.mark.parametrize(
    "options",
    [
        ("--temperature", "1e-320"),
        ("--temperature", "1e308"),
        ("--top-k", "1099511627776"),
        ("--random-seed", "9223372036854775807"),
        ("--num-samples", "1", "--length", "0"),
    ],
)
def test_generate_accepts_a_value_at_its_bound(llm: Llm, model_directory: Path, options: tuple[str, ...]) -> None:
    result = llm("generate", "--model", model_directory, "--seed", "a", "--length", "3", *options)
    assert result.returncode == 0
    assert result.stdout.startswith("a")


def test_min_count_out_of_range(llm: Llm, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("aab")
    for value in ("0", "-1", "3", "99999999999999999999", MANY_DIGITS, ""):
        assert_refused(llm("build-vocab", "a.txt", "--min-count", value), 2, "min-count")
    assert llm("build-vocab", "a.txt", "--min-count", "2").returncode == 0


# File names.


def test_every_mention_of_a_setting_is_an_option(llm: Llm, tmp_path: Path) -> None:
    (tmp_path / "one.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    result = llm("train", "one.jsonl")
    assert_refused(result, 65, "--validation-split 0.1 holds out the only document")
    assert result.stderr.endswith(" choose --validation-split 0\n")


@pytest.mark.parametrize("command", ["train", "build-vocab", "evaluate"])
def test_an_empty_name_is_not_the_current_folder(llm: Llm, tmp_path: Path, model_directory: Path, command: str) -> None:
    (tmp_path / "private.txt").write_text("not meant\n" * 100)
    model = ("--model", model_directory) if command == "evaluate" else ()
    assert_refused(llm(command, "", *model), 66, "''")
    assert_refused(llm(command, " ", *model), 66, "no such file")
    assert names_in(tmp_path) == ["private.txt"]


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["train", TOO_LONG], 74),
        (["train", "a.txt", "--vocab", TOO_LONG], 74),
        (["train", "a.txt", "--config", TOO_LONG], 74),
        (["train", "a.txt", "--output", TOO_LONG], 73),
        (["train", "--resume", TOO_LONG], 74),
        (["serve", TOO_LONG], 74),
        (["build-vocab", TOO_LONG], 74),
        (["build-vocab", "a.txt", "-o", TOO_LONG], 73),
        (["generate", "--seed", "a", "--model", TOO_LONG], 74),
        (["info", TOO_LONG], 74),
    ],
)
def test_a_file_name_that_is_too_long(llm: Llm, tmp_path: Path, arguments: list[str], status: int) -> None:
    (tmp_path / "a.txt").write_text("some text\n" * 100)
    assert_refused(llm(*arguments), status, "File name too long")
    assert names_in(tmp_path) == ["a.txt"]


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["--vocab", ""], 65),
        (["--vocab", "."], 65),
        (["--vocab", "/dev/zero"], 65),
        (["--vocab", "a.txt"], 65),
        (["--config", "nowhere"], 66),
        (["--config", "."], 66),
        (["--config", "/dev/zero"], 65),
        (["--config", "a.txt"], 65),
        (["--config", "list.json"], 65),
    ],
)
def test_train_refuses_an_invalid_vocabulary_or_run(
    llm: Llm, tmp_path: Path, arguments: list[str], status: int
) -> None:
    (tmp_path / "a.txt").write_text("some text\n" * 100)
    (tmp_path / "list.json").write_text("[]")
    assert_refused(llm("train", "a.txt", *arguments), status)
    assert names_in(tmp_path) == ["a.txt", "list.json"]


@pytest.mark.parametrize("name", ["m.keras", "m.h5", "m.pt", "m.pkl", "m.gguf", "m.safetensors", "m.txt", "m.json"])
def test_a_file_of_another_format_is_refused_without_opening_it(llm: Llm, tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)  # opening it would block
    for arguments in (["generate", "--seed", "a", "--model", name], ["evaluate", "/dev/null", "--model", name]):
        assert_refused(llm(*arguments), 65, f"{name} is not a model")
    assert_refused(llm("info", name), 65, name)


def test_a_file_of_a_terabyte_is_refused_without_reading_it(llm: Llm, tmp_path: Path) -> None:
    with (tmp_path / "model.bin").open("wb") as file:
        file.truncate(2**40)
    assert_refused(llm("generate", "--seed", "a", "--model", "model.bin"), 65, "is not a model")
    assert_refused(llm("info", "model.bin"), 65, "are more than the limit")


def test_a_text_without_a_known_character_cannot_be_evaluated(llm: Llm, tmp_path: Path, model_directory: Path) -> None:
    (tmp_path / "digits.txt").write_text("0123456789")
    assert_refused(llm("evaluate", "digits.txt", "--model", model_directory), 65, "at least 2 tokens")


# Outputs.


@pytest.mark.parametrize(
    ("output", "status"),
    [
        ("/dev/full", 74),
        ("/proc/vocab.json", 73),
        ("a.txt/vocab.json", 73),
        ("folder", 73),
        ("", 73),
        ("no/v.json", 73),
    ],
)
def test_an_output_that_cannot_be_written(llm: Llm, tmp_path: Path, output: str, status: int) -> None:
    (tmp_path / "a.txt").write_text("some text")
    (tmp_path / "folder").mkdir()
    if output.startswith("/") and not Path(output).parent.exists():
        pytest.skip("no such device here")
    assert_refused(llm("build-vocab", "a.txt", "-o", output), status, "cannot write")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.txt", "folder"]


def test_a_symbolic_link_as_output_is_kept(llm: Llm, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("some text")
    (tmp_path / "link.json").symlink_to("real.json")
    assert llm("build-vocab", "a.txt", "-o", "link.json").returncode == 0
    assert (tmp_path / "link.json").is_symlink()
    assert llm("info", "real.json").returncode == 0


def test_the_umask_is_respected(llm: Llm, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("some text")
    before = os.umask(0o077)
    try:
        assert llm("build-vocab", "a.txt").returncode == 0
    finally:
        os.umask(before)
    assert (tmp_path / "vocab.json").stat().st_mode & 0o777 == 0o600
