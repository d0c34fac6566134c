"""Closed streams, a missing current folder, little memory, missing TensorFlow: errors of one line and exit statuses."""

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

ONE_CHARACTER = "a" * 3000
SMALL = ("--hidden-dim", "4", "--embedding-dim", "2", "--window", "4", "--batch-size", "2", "--threads", "2")

needs_tensorflow = pytest.mark.skipif(importlib.util.find_spec("tensorflow") is None, reason="TensorFlow not installed")
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="streams, devices and modes of POSIX")


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


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


@pytest.mark.slow
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


@pytest.mark.slow
@needs_tensorflow
def test_a_model_of_one_character(run_folder: Path, llm: Llm) -> None:
    model = ("--model", run_folder / "runs" / "one")
    assert llm("generate", *model, "--seed", "a", "--length", "4").stdout == "aaaaa\n"
    result = llm("evaluate", run_folder / "one.txt", *model)
    assert result.returncode == 0
    assert re.search(r"^perplexity +1\.000\d$", result.stdout, re.MULTILINE)


@pytest.mark.slow
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
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert "of memory" in result.stderr
    assert [path.name for path in tmp_path.rglob("*") if path.name != "runs"] == ["a.txt"]


@needs_tensorflow
def test_a_refused_run_keeps_an_existing_folder(llm: Llm, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("some text\n" * 100)
    (tmp_path / "mine").mkdir()
    arguments = ("--hidden-dim", "65536", "--steps", "1", "--threads", "2", "--output", "mine")
    assert llm("train", "a.txt", *arguments).returncode == 2
    assert list((tmp_path / "mine").iterdir()) == []
