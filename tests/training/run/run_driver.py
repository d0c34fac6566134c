"""Starts, stops and resumes training runs in this process, and compares what they leave on disk."""

import hashlib
import io
import json
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from quickfox.checkpoints.run_directory import list_checkpoint_directories
from quickfox.config.training import TrainingRequest
from quickfox.data.encoding import Split
from quickfox.files.json import DIGEST, format_json_with_digest
from quickfox.text.corpus import Corpus, open_corpus
from quickfox.tokenizers.base import Tokenizer
from quickfox.training.engine.events import Event, NgramsEstimated, RunContext, RunRequest, RunStarted, StepsCompleted
from quickfox.training.run import start as start_module
from quickfox.training.run.dataset import choose_tokenizer
from quickfox.training.run.resume import resume_run
from quickfox.training.run.start import start_run
from quickfox.training.run.transfer import resolve_request

TEXT = "the quick brown fox jumps over the lazy dog\n" * 40
SMALL: dict[str, Any] = {
    "hidden_dim": 16,
    "embedding_dim": 4,
    "batch_size": 4,
    "window": 16,
    "random_seed": 1,
    "threads": 2,
}
NGRAM_ALONE: dict[str, Any] = {"architecture": "ngram", "random_seed": 1, "threads": 2}
STEPS = 90
VALIDATION_INTERVAL = 25  # steps; an epoch of TEXT

CONTEXT = RunContext(notify=pytest.fail, started=0.0)
SEED = 3

LENGTHS = {"steps", "epochs", "budget"}

Condition = Callable[[Event], bool]


def at_step(step: int) -> Condition:
    """True from the first `StepsCompleted` at or after `step` on."""
    return lambda event: isinstance(event, StepsCompleted) and event.step >= step


def with_tables(event: Event) -> bool:
    """True for the event of the n-gram tables."""
    return isinstance(event, NgramsEstimated)


def is_start(event: Event) -> bool:
    """True for the event before the first step."""
    return isinstance(event, RunStarted)


def collect_events(
    open_run: Callable[[RunContext], Iterator[Event]],
    stop: Condition = lambda _: False,
    kill: Condition = lambda _: False,
    notices: list[str] | None = None,
    seconds_ago: float = 0.0,
) -> list[Event]:
    """All events of a run.

    Args:
        open_run: starts or resumes it.
        stop: the event after which it is requested to stop.
        kill: the event after which it is abandoned without a chance to save.
        notices: receives its notices.
        seconds_ago: when its clock started.
    """
    has_stopped = False
    events: list[Event] = []
    run_context = RunContext(
        notify=[].append if notices is None else notices.append,
        started=start_module.time.monotonic() - seconds_ago,
        stop_requested=lambda: has_stopped,
    )
    with closing(open_run(run_context)) as run:
        for event in run:
            events.append(event)
            has_stopped = has_stopped or stop(event)
            if kill(event):
                break
    return events


COLLECTING = ("stop", "kill", "notices", "seconds_ago")


def start(
    folder: Path,
    *,
    text: str = TEXT,
    corpus: Corpus | None = None,
    validation: Corpus | None = None,
    settings: dict[str, Any] = SMALL,
    options: dict[str, Any] | None = None,
    **more: Any,
) -> list[Event]:
    """A new run in `folder`/run on the text in `folder`/corpus.txt.

    Args:
        folder: created if it does not exist.
        text: the text.
        corpus: read instead of the text.
        validation: the text to validate on.
        settings, options: the training settings requested; the options win.
        more: arguments of `collect_events`, and fields of `RunRequest`.
    """
    collecting = {name: more.pop(name) for name in COLLECTING if name in more}
    folder.mkdir(exist_ok=True)
    source = folder / "corpus.txt"
    source.write_text(text, encoding="utf-8")
    requested = {**settings, **(options or {})}
    has_length = "config_from" in more or requested.get("architecture") == "ngram" or LENGTHS & requested.keys()
    if not has_length:
        requested["steps"] = STEPS
    if validation is not None:
        more["validation"] = validation.names
    request = RunRequest(training=TrainingRequest(**requested), output=folder / "run", **more)
    return collect_events(
        lambda run_context: start_run(
            corpus or open_corpus([str(source)], run_context.notify), "corpus", request, run_context, validation
        ),
        **collecting,
    )


def start_ngram_model(folder: Path, **more: Any) -> list[Event]:
    """As `start`, a run of an n-gram model alone."""
    return start(folder, settings=NGRAM_ALONE, **more)


def resume(folder: Path, checkpoint_every: str | None = None, **options: Any) -> list[Event]:
    """The run in `folder`/run resumed."""
    collecting = {name: options.pop(name) for name in COLLECTING if name in options}
    return collect_events(
        lambda run_context: resume_run(
            folder / "run", TrainingRequest(**options), run_context=run_context, checkpoint_every=checkpoint_every
        ),
        **collecting,
    )


def corpus_of(folder: Path, content: str | list[str]) -> Corpus:
    """A plain text, or documents as JSON lines."""
    path = folder / ("corpus.txt" if isinstance(content, str) else "corpus.jsonl")
    lines = content if isinstance(content, str) else "".join(json.dumps({"text": text}) + "\n" for text in content)
    path.write_text(lines, encoding="utf-8", newline="")
    return open_corpus([str(path)], pytest.fail)


def tokenizer_of(corpus: Corpus, **options: Any) -> tuple[Tokenizer, Split | None]:
    """The tokenizer of a run on a corpus, and what is held out."""
    options = {"random_seed": SEED, **options}
    return choose_tokenizer(corpus, None, resolve_request(RunRequest(training=TrainingRequest(**options))), CONTEXT)


def standard_input(text: str = TEXT) -> Corpus:
    """A corpus that can be read once."""
    return open_corpus(["-"], [].append, stdin=io.BytesIO(text.encode()))


def read_history(folder: Path) -> list[dict[str, Any]]:
    """The lines of history.jsonl, without the seconds and the checksum."""
    lines = [json.loads(line) for line in (folder / "run" / "history.jsonl").read_text().splitlines()]
    for line in lines:
        for name in ("seconds", "crc32"):
            line.pop(name, None)
    return lines


def read_validations(folder: Path) -> list[dict[str, Any]]:
    """The validations in history.jsonl, without the seconds."""
    return [line for line in read_history(folder) if line["event"] == "validation"]


def outcome(folder: Path) -> dict[str, Any]:
    """Everything about a run that must not depend on whether it was ever interrupted."""
    last = list_checkpoint_directories(folder / "run")[-1]
    state = json.loads((last / "state.json").read_text())
    return {
        "model": sha256(last / "model.safetensors"),
        "training": sha256(last / "training.safetensors"),
        "state": {name: value for name, value in state.items() if "seconds" not in name and name != "timed_steps"},
        "history": read_history(folder),
        "plan": json.loads((folder / "run" / "run.json").read_text())["training"],
        "files": sorted(path.name for path in (folder / "run").iterdir()),
    }


def sha256(path: Path) -> str:
    """Of a file, in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write_run_json(path: Path, values: dict[str, Any]) -> None:
    """Writes the members of a `run.json` with a digest that matches them."""
    path.write_bytes(format_json_with_digest({name: value for name, value in values.items() if name != DIGEST}))


def read_files(folder: Path) -> dict[str, bytes]:
    """Every file of the run."""
    return {str(path): path.read_bytes() for path in (folder / "run").rglob("*") if path.is_file()}


def flip_bit(path: Path) -> None:
    """Damages a file in the middle."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
