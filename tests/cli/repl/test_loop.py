"""`llm generate --interactive` with lines piped to it, and at a terminal of its own."""

import contextlib
import os
import re
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import quickfox
from quickfox.model import Model

Llm = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def converse(llm: Llm, model_directory: Path) -> Callable[..., tuple[str, str]]:
    """What `llm generate --interactive` answers to lines, on standard output and on standard error."""

    def run(*lines: str, options: tuple[object, ...] = ("--random-seed", 1, "--length", 10)) -> tuple[str, str]:
        script = "".join(f"{line}\n" for line in lines)
        result = llm("generate", "--interactive", "--model", model_directory, *options, input=script)
        assert result.returncode == 0, result.stderr
        return result.stdout, result.stderr

    return run


@pytest.fixture(scope="module")
def model(model_directory: Path) -> Model:
    return quickfox.load(model_directory)


def test_each_line_is_continued_with_the_next_random_seed(converse, model) -> None:
    first, second = (model.generate(seed, length=10, random_seed=n) for seed, n in (("the fox", 1), ("a dog", 2)))
    assert converse("the fox", "a dog") == (f"{first}\n{second}\n", "")


def test_the_random_seed_that_was_drawn_is_told_once_and_repeats_all(converse) -> None:
    texts, told = converse("fox", "dog", options=("--length", 10))
    random_seed = re.fullmatch(r"random seed: (\d+)\n", told)[1]
    assert converse("fox", "dog", options=("--length", 10, "--random-seed", random_seed))[0] == texts


def test_an_empty_line_continues_the_text_so_far(converse, model) -> None:
    first = model.generate("the fox", length=10, random_seed=1)
    rest = model.generate(first, length=10, random_seed=2, echo=False)
    assert converse("the fox", "")[0] == f"{first}\n{rest}\n"


def test_what_was_drawn_from_nothing_goes_on_from_the_newline_that_it_began_with(converse, model) -> None:
    first = model.generate("", length=10, random_seed=1)
    rest = model.generate("\n" + first, length=10, random_seed=2, echo=False)
    assert converse("", "")[0] == f"{first}\n{rest}\n"


def test_a_text_that_was_stopped_goes_on_after_what_is_shown(converse, model) -> None:
    whole = model.generate("ab", length=200, random_seed=1, echo=False)
    stop = whole[50:53]
    shown = "ab" + whole[: whole.index(stop)]
    rest = model.generate(shown, length=3, random_seed=2, echo=False)
    assert converse("/length 200", f'/stop "{stop}"', "ab", "/stop none", "/length 3", "")[0] == f"{shown}\n{rest}\n"


def test_of_several_samples_the_last_goes_on(converse, model) -> None:
    first, second = model.generate("ab", length=10, random_seed=1, num_samples=2, echo=False)
    rest = model.generate("ab" + second, length=10, random_seed=2, echo=False)
    assert converse("/num-samples 2", "ab", "/num-samples 1", "")[0] == f"ab{first}\n---\n{second}\n{rest}\n"


def test_the_seed_of_the_command_line_is_the_first_prompt(converse, model) -> None:
    text = model.generate("/fox", length=5, random_seed=1)
    assert converse(options=("--seed", "/fox", "--length", 5, "--random-seed", 1))[0] == f"{text}\n"


def test_no_echo_leaves_prompts_out(converse, model) -> None:
    options = ("--no-echo", "--length", 5, "--random-seed", 1)
    assert converse("fox", options=options)[0] == model.generate("fox", length=5, random_seed=1, echo=False) + "\n"


def test_a_line_that_ends_in_a_backslash_goes_on(converse) -> None:
    assert converse("/length 0", "ab\\", "c\\", "", "d\\")[0] == "ab\nc\n\nd\n\n"


def test_settings_hold_for_the_texts_after_them(converse, model) -> None:
    text = model.generate("fox", length=20, temperature=0.3, top_k=2, random_seed=7)
    assert converse("/length 20", "/temperature 0.3", "/top-k 2", "/random-seed 7", "fox")[0] == f"{text}\n"


def test_settings_are_shown_on_standard_error(converse) -> None:
    assert converse("/temperature", "/top-k 4", "/top-k", "/stop", "/random-seed") == (
        "",
        "/temperature 0.8\n/top-k 4\n/stop none\n/random-seed 1\n",
    )
    all_settings = converse("/settings")[1]
    assert "/length 10\n" in all_settings
    assert "/logprobs" not in all_settings


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("/temperature hot", "/temperature: setting 'temperature' cannot be 'hot'"),
        ("/temperature -1", "/temperature: temperature must be at least 0.0, not -1"),
        ("/fox", "unknown command /fox: /help lists them, and //fox is a prompt"),
        ("/ fox", "unknown command /: /help lists them, and // is a prompt"),
        ("/quit now", "/quit takes no value"),
    ],
)
def test_what_is_wrong_is_said_in_one_line_and_the_loop_goes_on(converse, model, line: str, said: str) -> None:
    text = model.generate("fox", length=10, random_seed=1)
    assert converse(line, "fox") == (f"{text}\n", f"{said}\n")


def test_a_text_that_cannot_be_drawn_leaves_nothing_behind(converse) -> None:
    texts, told = converse("/logit-bias €=1", "fox", "/logit-bias none", "/length 0", "dog")
    assert (texts, told) == ("dog\n", "logit-bias: '€' is not one token of this model\n")


def test_unknown_characters_are_told_of_or_refused(converse) -> None:
    assert converse("/length 0", "fòx") == ("fox\n", "warning: replaced 'ò' by 'o'\n")
    texts, told = converse("fòx", "fox", options=("--unknown", "error", "--random-seed", 1, "--length", 0))
    assert texts == "fox\n"
    assert told.count("\n") == 1
    assert "U+00F2" in told


def test_a_line_that_is_no_utf8_is_passed_over(program, model_directory: Path, environment) -> None:
    result = subprocess.run(
        [*program, "generate", "--interactive", "--model", model_directory, "--length", "0", "--random-seed", "1"],
        input=b"a\nb\xff\nc\r\n",
        env=environment,
        capture_output=True,
        timeout=100,
    )
    assert (result.returncode, result.stdout) == (0, b"a\nc\n")
    assert result.stderr == b"standard input line 2: not UTF-8\n"


def test_a_slash_is_doubled_and_reset_forgets(converse, model) -> None:
    first = model.generate("/fox", length=10, random_seed=1)  # the slash is not known to the model
    second = model.generate("", length=10, random_seed=2)
    assert converse("//fox", "/reset", "", options=("--unknown", "skip", "--random-seed", 1, "--length", 10)) == (
        f"{first}\n{second}\n",
        "warning: left out 1 character that the model does not know: '/' (U+002F)\n",
    )


def test_help_and_quit(converse) -> None:
    texts, told = converse("/help", "/quit", "fox")
    assert texts == ""
    assert "/temperature 0.7" in told


def test_copies_are_told_of_and_avoided(converse, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("abcdefghijklmnopqrstuvwxyz" * 20)
    options = ("--novelty", corpus, "--max-copy", 4, "--random-seed", 1, "--length", 30)
    texts, told = converse("abcd", "", options=options)
    assert "abcde" not in texts
    assert told.count("longest stretch copied from the corpus") == 2


def test_colour_is_not_in_the_text_so_far(converse, model) -> None:
    coloured = converse("fox", "", options=("--color", "--random-seed", 1, "--length", 10))[0]
    assert "\x1b[" in coloured
    assert re.sub("\x1b\\[[0-9;]*m", "", coloured) == converse("fox", "")[0]


class Terminal:
    """`llm generate --interactive` at a pseudo-terminal that controls it, as a window does."""

    def __init__(self, command: list[str], environment: dict[str, str], output: Path | None) -> None:
        import fcntl
        import pty
        import termios

        self._screen, keyboard = pty.openpty()
        with contextlib.ExitStack() as stack:
            self.process = subprocess.Popen(
                command,
                env=environment,
                stdin=keyboard,
                stdout=stack.enter_context(output.open("wb")) if output else keyboard,
                stderr=keyboard,
                start_new_session=True,
                preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
            )
        os.close(keyboard)

    def type(self, keys: str) -> None:
        os.write(self._screen, keys.encode())

    def read_until(self, text: str) -> str:
        """What is shown up to the next time that it ends in the text."""
        shown = b""
        while not shown.endswith(text.encode()):
            assert select.select([self._screen], [], [], 60)[0], f"waited for {text!r} after {shown!r}"
            shown = (shown + os.read(self._screen, 1)).replace(b"\r\n", b"\n")
            assert len(shown) < 50_000, f"waited for {text!r} after so much"
        return shown.decode()

    def close(self) -> None:
        os.close(self._screen)
        self.process.kill()
        self.process.wait()


@pytest.fixture
def terminal(program, environment, model_directory: Path, tmp_path: Path) -> Iterator[Callable[..., Terminal]]:
    pytest.importorskip("pty")
    environment = {**environment, "XDG_STATE_HOME": str(tmp_path / "state"), "TERM": "dumb"}
    arguments = ["generate", "--interactive", "--model", str(model_directory), "--random-seed", "1", "--length", "8"]
    with contextlib.ExitStack() as stack:

        def start(*, output: Path | None = None, **variables: str) -> Terminal:
            terminal = Terminal([*program, *arguments], environment | variables, output)
            stack.callback(terminal.close)
            return terminal

        yield start


CTRL_C, CTRL_D, CTRL_P = "\x03", "\x04", "\x10"


def test_ctrl_c_stops_the_text_and_not_the_program(terminal) -> None:
    window = terminal()
    window.read_until("> ")
    window.type("/length 1000000000\n")
    window.read_until("> ")
    window.type("fox\n")
    window.read_until("fox\nfox")
    window.type(CTRL_C)
    assert window.read_until("> ").endswith("\n> ")
    window.type("half a line" + CTRL_C)
    window.read_until("\n> ")
    window.type("/length 0\n")
    window.read_until("\n> ")
    window.type("dog\n")
    assert window.read_until("> ") == "dog\ndog\n> "
    window.type(CTRL_D)
    assert window.process.wait(timeout=60) == 0


def test_a_text_that_was_stopped_is_the_text_so_far(terminal, model) -> None:
    window = terminal()
    window.type("/length 1000000000\n/temperature 0\nfox\n")
    window.read_until("fox" + model.generate("fox", length=8, temperature=0, echo=False)[:4].split("\n")[0])
    window.type(CTRL_C)
    window.read_until("\n> ")
    window.type("/length 0\n")
    window.read_until("> ")
    window.type("/length\n")
    assert "/length 0" in window.read_until("> ")


@pytest.mark.parametrize("is_drawing", [True, False])
def test_sigterm_ends_the_program(terminal, is_drawing: bool) -> None:
    window = terminal()
    window.read_until("> ")
    if is_drawing:
        window.type("/length 1000000000\n")
        window.read_until("> ")
        window.type("fox\n")
        window.read_until("fox\nfox")
    window.process.send_signal(signal.SIGTERM)
    with contextlib.suppress(OSError):  # the terminal is closed when nobody is left at the other end
        while os.read(window._screen, 2**16):
            pass
    assert window.process.wait(timeout=60) == 143


def test_lines_are_edited_and_remembered(terminal, model, tmp_path: Path) -> None:
    pytest.importorskip("readline")
    window = terminal()
    window.read_until("> ")
    window.type("fix\b\x7fox\n")
    window.read_until("\n")
    first = model.generate("fox", length=8, random_seed=1)
    assert window.read_until("\n> ") == f"{first}\n> "
    window.type(CTRL_D)
    assert window.process.wait(timeout=60) == 0
    assert (tmp_path / "state" / "quickfox" / "history").read_text().endswith("fox\n")
    window = terminal()
    window.read_until("> ")
    window.type(f"{CTRL_P}\n")
    window.read_until("\n")
    assert window.read_until("\n> ") == f"{first}\n> "


def test_a_history_that_cannot_be_kept_is_told_of_once(terminal, tmp_path: Path) -> None:
    pytest.importorskip("readline")
    (tmp_path / "state").write_text("not a folder")
    window = terminal()
    assert window.read_until("> ").count("lines are not remembered") == 1
    window.type(CTRL_D)
    assert window.read_until("\n") == "\n"
    assert window.process.wait(timeout=60) == 0


@pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals of POSIX")
def test_standard_output_in_a_file_has_the_texts_only(terminal, model, tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    window = terminal(output=log)
    window.read_until("> ")
    window.type("dog\n")
    window.read_until("dog\n> ")
    window.type(f"{CTRL_P}\n")
    window.read_until("dog\n> ")
    window.type(CTRL_D)
    assert window.process.wait(timeout=60) == 0
    texts = (model.generate("dog", length=8, random_seed=random_seed) for random_seed in (1, 2))
    assert log.read_text() == "".join(f"{text}\n" for text in texts)


def test_a_person_without_readline_is_asked_as_well(terminal, model, tmp_path: Path) -> None:
    folder = tmp_path / "without"
    folder.mkdir()
    (folder / "readline.py").write_text("raise ImportError('not on this platform')")
    window = terminal(PYTHONPATH=os.pathsep.join([str(folder), str(Path(quickfox.__file__).parents[1])]))
    window.read_until("> ")
    window.type("fox\n")
    window.read_until("fox\n")
    assert window.read_until("\n> ") == model.generate("fox", length=8, random_seed=1) + "\n> "
    assert not (tmp_path / "state").exists()
