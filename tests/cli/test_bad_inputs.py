"""Invalid input: each case gives one line of error and its exit status, and leaves no files behind.

Processes are used only where streams, folders or the interpreter matter. One training run serves all tests that need a
run.
"""

import importlib.util
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

Llm = Callable[..., subprocess.CompletedProcess[str]]

TOO_LONG = "x" * 5000
MANY_DIGITS = "9" * 5000
ONE_CHARACTER = "a" * 3000
SMALL = ("--hidden-dim", "4", "--embedding-dim", "2", "--window", "4", "--batch-size", "2", "--threads", "2")

needs_tensorflow = pytest.mark.skipif(importlib.util.find_spec("tensorflow") is None, reason="TensorFlow not installed")
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
        (["train", "--resume", TOO_LONG], 74),
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


# Processes.


def shell(program: list[str], script: str) -> list[str]:
    """A command in which the shell's `script` starts `llm` as "$@"."""
    return ["sh", "-c", script, "sh", *program]


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["train", "--help"], ["info", "MODEL"]])
def test_a_closed_standard_output_is_one_line_and_status_74(
    program: list[str], environment: dict[str, str], model_directory: Path, arguments: list[str]
) -> None:
    arguments = [str(model_directory) if argument == "MODEL" else argument for argument in arguments]
    result = subprocess.run(
        [*shell(program, 'exec "$@" >&-'), *arguments], env=environment, capture_output=True, encoding="utf-8"
    )
    assert (result.returncode, result.stderr) == (74, "llm: cannot write to standard output: it is closed\n")


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["info"], 66),
        (["generate", "--seed", "a"], 66),
        (["train", "--resume"], 66),
        (["build-vocab", "CORPUS"], 73),
        (["generate", "--model", "MODEL", "--seed", "a", "--length", "1"], 0),
    ],
)
def test_the_current_folder_was_removed(
    program: list[str],
    environment: dict[str, str],
    tmp_path: Path,
    model_directory: Path,
    arguments: list[str],
    status: int,
) -> None:
    corpus = tmp_path / "a.txt"
    corpus.write_text("some text")
    named = {"CORPUS": str(corpus), "MODEL": str(model_directory)}
    command = shell(program, 'mkdir gone && cd gone && rmdir ../gone && exec "$@"')
    result = subprocess.run(
        [*command, *(named.get(argument, argument) for argument in arguments)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        encoding="utf-8",
    )
    assert result.returncode == status
    assert result.stderr.count("\n") == 1
    assert "Traceback" not in result.stderr


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
def test_a_line_of_200_megabytes_from_a_pipe_takes_little_memory(
    program: list[str], environment: dict[str, str], tmp_path: Path
) -> None:
    megabytes = 200
    os.mkfifo(tmp_path / "pipe")

    def write() -> None:
        with (tmp_path / "pipe").open("wb") as pipe:
            for _ in range(megabytes):
                pipe.write(b"quick fox " * 100_000)

    report_memory = f"import atexit; atexit.register(lambda: print(open('/proc/self/status').read())); {program[-1]}"
    writer = threading.Thread(target=write)
    writer.start()
    result = subprocess.run(
        [sys.executable, "-c", report_memory, "build-vocab", "pipe"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        encoding="utf-8",
    )
    writer.join()
    assert result.returncode == 0
    assert f"{megabytes * 1_000_000:,}" in result.stderr
    peak = re.search(r"VmHWM:\s+(\d+) kB", result.stdout)  # not ru_maxrss, which may be that of the process before exec
    assert peak is not None
    assert int(peak[1]) < 150_000


@pytest.fixture(scope="module")
def run_folder(program: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on a text of one character, trained without standard streams and with an almost empty environment."""
    folder = tmp_path_factory.mktemp("bare")
    (folder / "one.txt").write_text(ONE_CHARACTER)
    result = subprocess.run(
        [*shell(program, 'exec "$@" <&- >&- 2>&-'), "train", "one.txt", "--steps", "2", *SMALL],
        cwd=folder,
        env={"PATH": os.defpath},
        timeout=100,
    )
    assert result.returncode == 0
    return folder


@needs_tensorflow
def test_a_run_without_streams_and_environment_is_complete(run_folder: Path, llm: Llm) -> None:
    run = run_folder / "runs" / "one"
    assert names_in(run) == [
        "checkpoints",
        "history.jsonl",
        "run.json",
        "tokenizer.json",
    ]
    assert llm("info", run).returncode == 0


@needs_tensorflow
def test_a_model_of_one_character(run_folder: Path, llm: Llm) -> None:
    model = ("--model", run_folder / "runs" / "one")
    assert llm("generate", *model, "--seed", "a", "--length", "4").stdout == "aaaaa\n"
    result = llm("evaluate", run_folder / "one.txt", *model)
    assert result.returncode == 0
    assert re.search(r"^perplexity +1\.0000$", result.stdout, re.MULTILINE)


@needs_tensorflow
def test_resuming_without_tensorflow_names_the_installation_command_and_changes_no_file(
    program: list[str], environment: dict[str, str], run_folder: Path
) -> None:
    def content() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in run_folder.rglob("*") if path.is_file()}

    before = content()
    without = f"import sys; sys.modules['tensorflow'] = None; {program[-1]}"
    result = subprocess.run(
        [sys.executable, "-c", without, "train", "--resume", "--steps", "4"],
        cwd=run_folder,
        env=environment,
        capture_output=True,
        encoding="utf-8",
    )
    assert result.returncode == 69
    assert "pip install tensorflow" in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr
    assert content() == before


@needs_tensorflow
def test_a_model_too_large_for_memory_leaves_no_run(llm: Llm, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("some text\n" * 100)
    result = llm("train", "a.txt", "--hidden-dim", "65536", "--num-layers", "64", "--steps", "1", "--threads", "2")
    assert_refused(result, 2, "of memory")
    assert [path.name for path in tmp_path.rglob("*") if path.name != "runs"] == ["a.txt"]


@needs_tensorflow
def test_a_refused_run_keeps_an_existing_folder(llm: Llm, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("some text\n" * 100)
    (tmp_path / "mine").mkdir()
    arguments = ("--hidden-dim", "65536", "--steps", "1", "--threads", "2", "--output", "mine")
    assert llm("train", "a.txt", *arguments).returncode == 2
    assert list((tmp_path / "mine").iterdir()) == []
