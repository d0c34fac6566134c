"""The program as a whole: help, version, errors, streams that fail, and signals."""

import json
import os
import signal
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

import quickfox
from quickfox.cli import COMMANDS, app
from quickfox.cli.commands import info
from quickfox.errors import DataError, QuickfoxError, UsageError
from quickfox.version import __version__

Llm = Callable[..., subprocess.CompletedProcess[str]]

FOREVER = "1000000000"

only_posix = pytest.mark.skipif(sys.platform == "win32", reason="signals, /dev/full and pipes of POSIX")


def test_version(llm: Llm) -> None:
    result = llm("--version")
    assert (result.returncode, result.stdout, result.stderr) == (0, f"quickfox {__version__}\n", "")


def test_the_project_has_the_version_of_the_package() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert project["version"] == __version__


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_help_names_every_command(llm: Llm, arguments: list[str]) -> None:
    result = llm(*arguments)
    assert result.returncode == 0
    assert result.stderr == ""
    assert all(f"\n  {command} " in result.stdout for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_examples(llm: Llm, command: str) -> None:
    result = llm(command, "--help")
    assert result.returncode == 0
    assert "Examples:\n" in result.stdout
    assert f"  llm {command}" in result.stdout


def test_every_module_of_commands_is_a_command() -> None:
    modules = {path.stem.replace("_", "-") for path in (Path(app.__file__).parent / "commands").glob("*.py")}
    assert modules == {"--init--", *COMMANDS}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], "No such command 'trian'"),
        (["generate", "--colour"], "No such option: --colour"),
        (["generate", "--length", "many"], "'many' is not a valid int"),
        (["generate", "--length"], "--length"),
        (["generate", "two\nlines"], "two"),
        (["train"], "no CORPUS: name a text file"),
        (["train", "x.txt", "--budget", "soon"], "--budget: 'soon' is not a duration; write 60s, 5m or 1h"),
        (["train", "x.txt", "--architecture", "cnn"], "'cnn'"),
        (["train", "x.txt", "--steps", "5", "--epochs", "1"], "--steps and --epochs exclude each other"),
        (["train", "x.txt", "--hidden-dim", "0"], "llm: --hidden-dim must be at least 1, not 0\n"),
        (["train", "x.txt", "--size", "tiny", "--num-layers", "1"], "--size and --num-layers exclude each other"),
        (["generate", "--logit-bias", "e"], "llm: --logit-bias must be TEXT=X, such as e=-2, not 'e'\n"),
    ],
)
def test_a_usage_error_is_one_line_and_status_2(llm: Llm, arguments: list[str], message: str) -> None:
    result = llm(*arguments)
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.startswith("llm: ")
    assert result.stderr.count("\n") == 1
    assert message in result.stderr


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (UsageError("hidden_dim must be even", "hidden_dim"), "--hidden-dim must be even"),
        (UsageError("stop: stop it, nonstop, --stop", "stop"), "--stop: stop it, nonstop, --stop"),
        (UsageError("the sizes of size", "size"), "the sizes of --size"),
        (UsageError("num_beams and best_of exclude each other", "num_beams", "best_of"), "--num-beams and --best-of"),
        (UsageError("hidden_dim must be even"), "hidden_dim must be even"),
        (DataError("a text for window 64", "window"), "a text for --window 64"),
        (DataError("run.json: hidden_dim must be even"), "run.json: hidden_dim must be even"),
    ],
)
def test_the_settings_of_an_error_are_shown_as_options(
    llm: Llm, monkeypatch: pytest.MonkeyPatch, error: QuickfoxError, message: str
) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr(info, "run", fail)
    result = llm("info")
    assert result.returncode == error.exit_status
    assert result.stderr.startswith(f"llm: {message}")


def test_python_users_see_the_settings_by_their_names(llm: Llm, model_directory: Path) -> None:
    with pytest.raises(ValueError, match="top_k must be at least 1, not 0"):
        quickfox.load(model_directory).generate("a", top_k=0)
    assert llm("generate", "--top-k", "0").stderr == "llm: --top-k must be at least 1, not 0\n"


def test_a_file_of_prompts_is_refused_with_the_names_of_its_settings(llm: Llm, model_directory: Path) -> None:
    result = llm("generate", "--model", model_directory, "--prompts", "-", input='{"prompt": "a", "top_k": 0}\n')
    assert result.returncode == 65
    assert "top_k must be at least 1, not 0" in result.stderr


def test_the_program_answers_under_the_name_it_was_called_by(tmp_path: Path, environment: dict[str, str]) -> None:
    code = "import sys; sys.argv[0] = '/usr/bin/quickfox'; from quickfox.cli.app import main; main()"

    def quickfox_process(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", code, *arguments]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, encoding="utf-8", input="")

    assert quickfox_process("generate", "--help").stdout.startswith("Usage: quickfox generate [OPTIONS]")
    failed = quickfox_process("generate")
    assert failed.stderr.startswith("quickfox: no model in ./runs: train one with `quickfox train corpus.txt`")
    assert "(see quickfox train --help)" in quickfox_process("train", "--oops").stderr


def test_a_bug_shows_its_traceback(tmp_path: Path) -> None:
    imports = "from quickfox.cli.app import main; from quickfox.cli.commands import info"
    program = f"{imports}; info.run = lambda: 1 / 0; main()"
    result = subprocess.run(
        [sys.executable, "-c", program, "info"], cwd=tmp_path, capture_output=True, encoding="utf-8"
    )
    assert result.returncode == 1
    assert result.stderr.startswith("Traceback")
    assert "ZeroDivisionError" in result.stderr


def test_output_is_utf8_in_any_locale(llm_process: Llm, model_directory: Path, environment: dict[str, str]) -> None:
    for settings in ({"LC_ALL": "C"}, {"PYTHONIOENCODING": "ascii"}):
        result = llm_process(
            "generate", "--model", model_directory, "--seed", "äß", "--length", "0", env={**environment, **settings}
        )
        assert (result.returncode, result.stdout) == (0, "äß\n")


def test_help_is_shown_on_a_narrow_terminal(llm: Llm, environment: dict[str, str]) -> None:
    result = llm("train", "--help", env={**environment, "COLUMNS": "20"})
    assert result.returncode == 0
    assert "--hidden-dim" in result.stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_completes_commands(llm: Llm, environment: dict[str, str], shell: str) -> None:
    variables = {"_LLM_COMPLETE": f"complete_{shell}", "COMP_WORDS": "llm gen", "COMP_CWORD": "1"}
    variables |= {"_TYPER_COMPLETE_ARGS": "llm gen", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    assert "generate" in llm(env={**environment, **variables}).stdout


@only_posix
def test_a_closed_pipe_ends_the_program_quietly(
    program: list[str], model_directory: Path, environment: dict[str, str]
) -> None:
    command = [*program, "generate", "--model", str(model_directory), "--seed", "a", "--length", FOREVER]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(1) == b"a"
        process.stdout.close()
        messages = process.stderr.read().decode()
    assert process.returncode == 141
    assert messages.startswith("random seed: ")
    assert messages.count("\n") == 1


@only_posix
@pytest.mark.parametrize("arguments", [["--help"], ["generate", "--model", "MODEL", "--length", "3"]])
def test_a_full_disk_is_one_line_and_status_74(
    program: list[str], environment: dict[str, str], model_directory: Path, arguments: list[str]
) -> None:
    command = [*program, *(str(model_directory) if argument == "MODEL" else argument for argument in arguments)]
    with Path("/dev/full").open("w") as full:
        result = subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=full, stderr=subprocess.PIPE, encoding="utf-8"
        )
    assert result.returncode == 74
    assert result.stderr.splitlines()[-1] == "llm: cannot write to standard output: No space left on device"
    assert "Traceback" not in result.stderr
    assert "Exception" not in result.stderr


@only_posix
def test_text_is_written_even_if_messages_cannot_be(
    program: list[str], environment: dict[str, str], model_directory: Path
) -> None:
    command = [*program, "generate", "--model", str(model_directory), "--seed", "fox", "--length", "0"]
    with Path("/dev/full").open("w") as full:
        result = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=full, encoding="utf-8")
    assert (result.returncode, result.stdout) == (0, "fox\n")


@only_posix
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_program_with_its_status(
    program: list[str], model_directory: Path, environment: dict[str, str], number: signal.Signals, status: int
) -> None:
    command = [*program, "generate", "--model", str(model_directory), "--seed", "a", "--length", FOREVER]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.read(1) == b"a"  # output has started
        process.send_signal(number)
        _, messages = process.communicate(timeout=60)
    assert process.returncode == status
    assert b"Traceback" not in messages


def test_control_characters_of_a_name_do_not_reach_the_terminal(llm: Llm) -> None:
    result = llm("info", "\x1b[31mred\r\n")
    assert result.returncode == 66
    assert "\\x1b[31mred" in result.stderr
    assert "\x1b" not in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.skipif(sys.platform != "linux", reason="other systems allow only file names in UTF-8")
@pytest.mark.parametrize(
    "arguments",
    [
        ["generate", "--model", "MODEL", "--length", "1", "--json"],
        ["evaluate", "CORPUS", "--model", "MODEL", "--json"],
        ["score", "CORPUS", "--model", "MODEL", "--json"],
        ["check", "CORPUS", "--json"],
        ["check", "CORPUS", "--fix", "fixed"],
        ["build-vocab", "CORPUS", "--output", "vocabulary.json"],
        ["info", "MODEL"],
        ["export", "MODEL", "--format", "keras", "--output", "OUTPUT"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_name_that_is_not_utf_8_is_escaped_in_all_output(
    llm: Llm, tmp_path: Path, model_directory: Path, arguments: list[str]
) -> None:
    names = {name: os.fsdecode(name.encode() + b"\xff") for name in ("MODEL", "CORPUS", "OUTPUT")}
    (tmp_path / names["MODEL"]).symlink_to(model_directory)
    (tmp_path / names["CORPUS"]).write_text("the quick brown fox\n" * 20)
    result = llm(*[names.get(argument, argument) for argument in arguments])
    assert result.returncode == 0, result.stderr
    if "--json" in arguments:
        [json.loads(line) for line in result.stdout.splitlines()]
    for path in tmp_path.glob("fixed/*.jsonl"):
        [json.loads(line) for line in path.read_text().splitlines()]


def test_json_has_one_line_per_sample(llm: Llm, model_directory: Path) -> None:
    result = llm("generate", "--model", model_directory, "--length", "4", "--num-samples", "3", "--json")
    assert [json.loads(line)["sample"] for line in result.stdout.splitlines()] == [0, 1, 2]
