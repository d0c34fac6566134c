"""The text of a resumed run: its tokens are reused, made again from the same text, or the run is refused."""

import os
from pathlib import Path

import pytest
from run_driver import TEXT, at_step, flip_bit, outcome, read_files, resume, standard_input, start

from quickfox.errors import DataError, NoInputError
from quickfox.training.engine.events import RunInterrupted
from quickfox.training.run.recorded_text import stamp_files

pytestmark = pytest.mark.usefixtures("fake_training")


def remove_tokens(folder: Path) -> None:
    """The run has to read its text again."""
    (folder / "run" / "tokens.bin").unlink()


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        (TEXT.replace("lazy", "azyl"), DataError, "the text has changed"),
        (TEXT[:-1], DataError, "the text has changed"),
        (TEXT + "x", DataError, "the text has changed"),
        (TEXT.replace("q", "Q"), DataError, None),
        ("", NoInputError, "no text"),
        (None, NoInputError, "corpus.txt"),
    ],
)
def test_another_text_is_refused_and_changes_nothing(
    stopped: Path, text: str | None, error: type[Exception], message: str | None
) -> None:
    remove_tokens(stopped)
    (stopped / "corpus.txt").unlink()
    if text is not None:
        (stopped / "corpus.txt").write_text(text)
    before = read_files(stopped)
    with pytest.raises(error, match=message):
        resume(stopped)
    assert read_files(stopped) == before


def test_a_restored_text_is_accepted(uninterrupted: Path, stopped: Path) -> None:
    remove_tokens(stopped)
    (stopped / "corpus.txt").write_text(TEXT[:-1])
    with pytest.raises(DataError):
        resume(stopped)
    (stopped / "corpus.txt").write_text(TEXT)
    resume(stopped)
    assert outcome(stopped) == outcome(uninterrupted)


@pytest.mark.parametrize("text", [TEXT.replace("lazy", "idle"), TEXT[:-9], TEXT + "more", ""])
def test_another_text_is_refused_while_the_tokens_are_there(stopped: Path, text: str) -> None:
    (stopped / "corpus.txt").write_text(text)
    before = read_files(stopped)
    with pytest.raises(DataError, match="the text has changed"):
        resume(stopped)
    assert read_files(stopped) == before


def test_a_text_is_read_again_only_if_its_file_looks_different(tmp_path: Path) -> None:
    paths = [tmp_path / "a.txt", tmp_path / "b.txt"]
    files = [str(path) for path in paths]
    for path in paths:
        path.write_text("fox")
    assert stamp_files(files, 0.0) is None, "they may change again without another modification time"
    for path in paths:
        os.utime(path, (1000, 1000))
    stamp = stamp_files(files, 0.0)
    assert stamp is not None
    assert stamp == stamp_files(files, 1e6)
    assert stamp_files([*files, "-"], 0.0) is None
    assert stamp_files([*files, str(tmp_path / "missing.txt")], 0.0) is None
    assert stamp_files([str(paths[0] / "member.txt"), files[1]], 0.0) == stamp
    os.utime(paths[0], (1000, 1001))
    assert stamp_files(files, 0.0) not in (stamp, None)
    os.utime(paths[0], (1000, 1000))
    paths[1].write_text("foxes")
    os.utime(paths[1], (1000, 1000))
    assert stamp_files(files, 0.0) not in (stamp, None)


def test_the_tokens_of_a_stopped_run_replace_its_text(uninterrupted: Path, stopped: Path) -> None:
    (stopped / "corpus.txt").unlink()
    notices: list[str] = []
    resume(stopped, notices=notices)
    assert f"{stopped / 'corpus.txt'} is not there any more: the run goes on from its tokens" in notices
    assert outcome(stopped) == outcome(uninterrupted)
    assert not (stopped / "run" / "tokens.bin").exists()


def test_damaged_tokens_are_encoded_again(uninterrupted: Path, stopped: Path) -> None:
    flip_bit(stopped / "run" / "tokens.bin")
    resume(stopped)
    assert outcome(stopped) == outcome(uninterrupted)


def test_tokens_of_standard_input_are_kept_until_the_run_finishes(uninterrupted: Path, tmp_path: Path) -> None:
    start(tmp_path, corpus=standard_input(), stop=at_step(30))
    assert (tmp_path / "run" / "tokens.bin").stat().st_size == len(TEXT)
    assert isinstance(resume(tmp_path, stop=at_step(50))[-1], RunInterrupted)
    assert (tmp_path / "run" / "tokens.bin").exists()
    resume(tmp_path)
    assert outcome(tmp_path) == outcome(uninterrupted)


def test_damaged_or_missing_tokens_of_standard_input_are_refused(tmp_path: Path) -> None:
    start(tmp_path, corpus=standard_input(), stop=at_step(10))
    flip_bit(tmp_path / "run" / "tokens.bin")
    with pytest.raises(DataError, match="standard input"):
        resume(tmp_path)
    remove_tokens(tmp_path)
    with pytest.raises(NoInputError, match="standard input"):
        resume(tmp_path)
