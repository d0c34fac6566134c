"""The documentation: every fenced command is run on small files, or marked as not run; paths and links exist.

A command block is run here, or executed by .ci/run where `<!-- ci: NAME -->` stands before it, or marked by
`<!-- not run: REASON -->`. The commands of a document run in order, on small files. A training command runs as it is
written with `--dry-run`, and also with two small steps if a later command may use the run.
"""

import importlib.util
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import quickfox
from quickfox.cli.app import main

ROOT = Path(__file__).parent.parent
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "ARCHITECTURE.md",
    *sorted((ROOT / "docs").glob("*.md")),
]
FENCE = re.compile(
    r"(?:^<!-- (?P<mark>[^\n]*) -->\n)?^```(?P<language>\S*)[^\n]*\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
COMMAND_LANGUAGES = {"sh", "python", "yaml"}
OUTPUT_LANGUAGES = {"text", "layers", "map"}
MAX_README_LINES = 200

CORPORA = ("corpus.txt", "new.txt", "access.log", "letters.txt", "books/a.txt", "letters/a.txt", "logs")
THREADS = "2"  # of TensorFlow, the same for all tests in a process
SHORT = ("--steps", "2", "--window", "4", "--batch-size", "2", "--threads", THREADS)
SMALL = ("--num-layers", "1", "--hidden-dim", "16")
REPLACED = ("--num-layers", "--budget", "--epochs", "--steps", "--size", "--hidden-dim")
"""Options with a value that `SHORT` and `SMALL` replace."""

STANDARD_INPUT = b"To be\n"
"""Standard input of a command that is the first of its pipeline."""


@dataclass(frozen=True)
class Block:
    """A fenced block: where it is, the comment before it, its language and its content."""

    place: str
    mark: str
    language: str
    code: str


def blocks(*documents: Path) -> list[Block]:
    """The fenced blocks of these documents, or of all."""
    found = []
    for document in documents or DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        for match in FENCE.finditer(text):
            place = f"{document.relative_to(ROOT)}:{text.count(chr(10), 0, match.start()) + 1}"
            found.append(Block(place, match["mark"] or "", match["language"], match["code"]))
    return found


def is_run(block: Block) -> bool:
    return block.language in COMMAND_LANGUAGES and not block.mark.startswith(("ci: ", "not run: "))


def runnable_documents() -> list[Path]:
    return [document for document in DOCUMENTS if any(map(is_run, blocks(document)))]


def test_every_block_has_a_known_language() -> None:
    unknown = [block.place for block in blocks() if block.language not in COMMAND_LANGUAGES | OUTPUT_LANGUAGES]
    assert unknown == []


def test_every_fence_belongs_to_a_block() -> None:
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        assert len(re.findall("^```", text, re.MULTILINE)) == 2 * len(FENCE.findall(text)), document


def test_a_block_that_is_not_run_has_a_reason() -> None:
    marks = [block.mark for block in blocks() if block.mark]
    assert all(re.fullmatch(r"ci: [\w-]+|not run: \S.{9,}", mark) for mark in marks)
    assert all(not is_run(block) for block in blocks() if block.language == "yaml")


def test_ci_executes_the_blocks_that_are_marked_for_it() -> None:
    marked = {block.mark.removeprefix("ci: ") for block in blocks() if block.mark.startswith("ci: ")}
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert marked == set(re.findall(r"\$\(readme_block ([\w-]+)\)", script))


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= MAX_README_LINES


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_links_and_paths_exist(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)", text) if "://" not in link]
    paths = re.findall(r"(?<![\w/.-])(?:src|tests|docs|benchmarks|sample_corpora)/[\w./-]*[\w/]", text)
    modules = re.findall(r"`(\w+/[\w/]+\.py)`", text)
    missing = [link for link in links if not (document.parent / link).exists()]
    missing += [path for path in paths if not (ROOT / path).exists()]
    missing += [name for name in modules if not (ROOT / name).exists() and not (ROOT / "src/quickfox" / name).exists()]
    assert missing == []


def test_the_tests_that_documents_name_exist() -> None:
    named = [
        each
        for document in DOCUMENTS
        for each in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", document.read_text(encoding="utf-8"))
    ]
    assert len(named) > 40, "docs/reliability.md names the tests of its promises"
    sources = {path: (ROOT / path).read_text(encoding="utf-8") for path in {path for path, _ in named}}
    assert [f"{path}::{name}" for path, name in named if f"def {name}(" not in sources[path]] == []


def test_names_in_the_architecture_document_exist() -> None:
    document = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    prose = document[document.index("## Where do I change") :]
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.py"))
    names = set(re.findall(r"\b(?!test_)(?:[a-z]+_[a-z_]+|[A-Z][a-z]+[A-Z]\w+)\b", prose))
    assert names - set(re.findall(r"\w+", sources)) == set()


def test_both_names_start_the_same_program() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    assert scripts["quickfox"] == scripts["llm"]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with small corpora and the runs that commands refer to."""
    if importlib.util.find_spec("tensorflow") is None:
        pytest.skip("TensorFlow is not installed")
    folder = tmp_path_factory.mktemp("docs")
    novel = (ROOT / "sample_corpora" / "pride_and_prejudice.txt").read_text(encoding="utf-8")[:4000]
    samples = [f"sample_corpora/{path.name}" for path in (ROOT / "sample_corpora").glob("*.txt")]
    for name in (*CORPORA, *samples):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(novel, encoding="utf-8")
    subprocess.run(["gzip", "logs", "letters/a.txt"], cwd=folder, check=True)
    (folder / "benchmarks").symlink_to(ROOT / "benchmarks")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run_llm(["train", "corpus.txt", *SHORT, *SMALL, "--quiet"], b"")
    for name in ("books", "pride_and_prejudice"):
        shutil.copytree(folder / "runs" / "corpus", folder / "runs" / name)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("document", runnable_documents(), ids=lambda document: document.name)
def test_commands_run(document: Path, workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "work"
    shutil.copytree(workspace, folder, symlinks=True)
    monkeypatch.chdir(folder)
    for name in ("QUICKFOX_MODEL", "LLM_MODEL", "TF_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    for block in filter(is_run, blocks(document)):
        if block.language == "python":
            run_python(block.code, monkeypatch)
            continue
        lines = block.code.splitlines()
        for number, line in enumerate(lines, 1):
            is_used = document.name == "README.md" or any("llm train" not in later for later in lines[number:])
            run_line(line, is_used=is_used)


def run_python(code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Executes Python code, in which training takes two small steps."""
    train = quickfox.train

    def train_briefly(corpus: str, **options: Any) -> Any:
        options = {name: value for name, value in options.items() if name not in ("budget", "epochs", "steps")}
        return train(corpus, **options, steps=2, hidden_dim=16, window=4, batch_size=2, threads=int(THREADS))

    monkeypatch.setattr(quickfox, "train", train_briefly, raising=False)
    exec(compile(code, "documentation", "exec"), {})


def run_line(line: str, *, is_used: bool) -> None:
    """Runs a line of shell commands: pipelines joined by `&&`.

    Args:
        line: the commands; each may end with `> FILE`.
        is_used: whether a run that it trains is needed later; otherwise a training is only planned.
    """
    for pipeline in split(words_of(line), "&&"):
        data = STANDARD_INPUT
        for words in split(pipeline, "|"):
            if words[:2] == ["llm", "train"] and "--resume" not in words:
                plan = run_llm([*words[1:], "--dry-run", "--threads", THREADS], data)
                if not is_used and not {"--config", "--init-from"} & set(words):
                    data = plan
                    continue
            data = run_stage(words, data)


def words_of(line: str) -> list[str]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    return list(lexer)


def split(words: list[str], separator: str) -> Iterator[list[str]]:
    """The lists of words between separators; none if there are no words."""
    while words:
        end = words.index(separator) if separator in words else len(words)
        yield words[:end]
        words = words[end + 1 :]


def run_stage(words: list[str], data: bytes) -> bytes:
    """Runs one command of a pipeline on `data`; returns its standard output, empty if it is written to a file."""
    if words[-2:-1] == [">"]:
        Path(words[-1]).write_bytes(run_stage(words[:-2], data))
        return b""
    if words[0] in ("llm", "quickfox"):
        return run_llm(shortened(words[1:]), data)
    if words[0] == "python":
        words = [sys.executable, *words[1:]]
    elif shutil.which(words[0]) is None:
        return data
    return subprocess.run(["bash", "-c", shlex.join(words)], input=data, stdout=subprocess.PIPE, check=True).stdout


def shortened(arguments: list[str]) -> list[str]:
    """The arguments with a small training instead of the documented one."""
    if arguments[0] != "train" or "--dry-run" in arguments:
        return arguments
    kept = list(arguments)
    is_longer = False
    for option in REPLACED:
        if option in kept:
            position = kept.index(option)
            del kept[position : position + 2]
            is_longer = True
    if "--resume" in kept:
        return [*kept, "--steps", "3"] if is_longer else kept
    if "--config" in kept:
        return kept
    return [*kept, *SHORT, *(() if "--init-from" in kept else SMALL)]


def run_llm(arguments: list[str], data: bytes) -> bytes:
    """Runs `llm` in this process with `data` as standard input; returns its standard output."""
    source, product = Path(".stdin"), Path(".stdout")
    source.write_bytes(data)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    environment = dict(os.environ)
    with pytest.MonkeyPatch.context() as patch, source.open() as stdin:
        patch.setattr(sys, "argv", ["llm", *arguments])
        patch.setattr(sys, "stdin", stdin)
        patch.setattr(sys, "stdout", product.open("w"))
        try:
            with pytest.raises(SystemExit) as ended:
                main()
        finally:
            sys.stdout.close()
            for number, handler in handlers.items():
                signal.signal(number, handler)
            os.environ.clear()
            os.environ.update(environment)
    assert ended.value.code == 0, f"llm {shlex.join(arguments)} ended with status {ended.value.code}"
    return product.read_bytes()
