"""Create run directories, list and prune checkpoints, find a model."""

import dataclasses
import os
import re
import shutil
from pathlib import Path

import pytest

from quickfox.checkpoints.checkpoint import load_model, save_checkpoint
from quickfox.checkpoints.manifest import Manifest, read_manifest
from quickfox.checkpoints.run_directory import (
    checkpoint_directory,
    find_best_model,
    find_model,
    list_checkpoints,
    list_runs,
    make_run_directory,
    new_run_directory,
    prune_checkpoints,
    sort_by_loss,
)
from quickfox.errors import CannotCreateError, DataError, NoInputError, StorageError

Losses = dict[int, float | None]


class Home:
    """A working directory with runs, whose checkpoints differ only in step and loss."""

    def __init__(self, folder: Path, model: Path) -> None:
        self.folder = folder
        self._bundle = load_model(model)
        self._clock = 1_000_000_000

    def run(self, name: str, losses: Losses) -> Path:
        """Creates a run with a checkpoint for each step, each newer than the ones before."""
        run = self.folder / "runs" / name
        for step, loss in losses.items():
            checkpoint = checkpoint_directory(run, step)
            save_checkpoint(checkpoint, dataclasses.replace(self._bundle, step=step, validation_loss=loss), None)
            self._clock += 1
            os.utime(checkpoint / "manifest.json", (self._clock, self._clock))
        return run

    def find(self, path: str | None = None, **environ: str) -> tuple[Path, str | None, str | None]:
        return find_model(path, environ, self.folder)


@pytest.fixture
def home(tmp_path: Path, model_directory: Path) -> Home:
    return Home(tmp_path, model_directory)


def damage(checkpoint: Path, name: str = "model.safetensors") -> None:
    path = checkpoint / name
    path.write_bytes(path.read_bytes()[:-1] + b"!")


def steps_of(run: Path) -> list[int]:
    return [checkpoint.manifest.step for checkpoint in list_checkpoints(run)]


def test_new_runs_are_numbered(tmp_path: Path) -> None:
    names = [new_run_directory("corpus", tmp_path / "runs").name for _ in range(3)]
    assert names == ["corpus", "corpus-2", "corpus-3"]
    assert all((tmp_path / "runs" / name).is_dir() for name in names)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("my corpus (1)", "my-corpus-1"),
        ("../../etc", "etc"),
        (".hidden", "hidden"),
        ("红楼梦", "红楼梦"),
        ("...", "run"),
        ("", "run"),
        ("x" * 300, "x" * 64),
    ],
)
def test_a_run_name_becomes_a_directory_name(tmp_path: Path, name: str, expected: str) -> None:
    assert new_run_directory(name, tmp_path) == tmp_path / expected


def test_a_run_needs_a_new_or_empty_directory(tmp_path: Path) -> None:
    for _ in range(2):
        make_run_directory(tmp_path / "a" / "run")
    (tmp_path / "a" / "run" / "file").write_bytes(b"")
    with pytest.raises(CannotCreateError, match="is not empty"):
        make_run_directory(tmp_path / "a" / "run")
    with pytest.raises(CannotCreateError, match="file"):
        make_run_directory(tmp_path / "a" / "run" / "file")


def test_leftovers_of_a_run_killed_before_its_record_count_as_empty(tmp_path: Path) -> None:
    for name in ("lock", "tokens.bin", "tokens.bin.1", "tokens.mask", "tokenizer.json", ".quickfox-0123.tmp"):
        (tmp_path / name).touch()
    make_run_directory(tmp_path)
    (tmp_path / "run.json").touch()
    with pytest.raises(CannotCreateError, match=r"is a run: resume it with `llm train --resume"):
        make_run_directory(tmp_path)


def test_tokens_without_a_lock_are_not_leftovers(tmp_path: Path) -> None:
    (tmp_path / "tokens.txt").touch()
    with pytest.raises(CannotCreateError, match="is not empty"):
        make_run_directory(tmp_path)


def test_list_checkpoints_by_step_without_damaged_and_unfinished_ones(home: Home) -> None:
    run = home.run("a", {10: 2.0, 9: 3.0, 100_000_000: 1.0, 30: 1.5})
    damage(checkpoint_directory(run, 30), "manifest.json")
    shutil.copytree(checkpoint_directory(run, 10), run / "checkpoints" / ".quickfox-0123.tmp")
    damaged: list[DataError] = []
    assert [checkpoint.manifest.step for checkpoint in list_checkpoints(run, damaged)] == [9, 10, 100_000_000]
    assert [str(error) for error in damaged if "step-00000030" in str(error)] == [str(damaged[0])]


def test_sort_by_loss(home: Home) -> None:
    run = home.run("a", {1: 2.0, 2: None, 3: 1.5, 4: 1.5, 5: None})
    assert [checkpoint.manifest.step for checkpoint in sort_by_loss(list_checkpoints(run))] == [3, 4, 1, 5, 2]


@pytest.mark.parametrize(
    ("losses", "kept"),
    [
        ({1: 1.0, 2: 2.0, 3: 3.0, 4: 4.0}, [1, 3, 4]),
        ({1: 4.0, 2: 3.0, 3: 2.0, 4: 1.0}, [3, 4]),
        ({1: None, 2: None, 3: None}, [2, 3]),
        ({1: 1.0}, [1]),
        ({}, []),
    ],
)
def test_prune_keeps_the_best_and_the_last_two(home: Home, losses: Losses, kept: list[int]) -> None:
    run = home.run("a", losses)
    prune_checkpoints(run)
    assert steps_of(run) == kept
    assert len(list((run / "checkpoints").glob("*"))) == len(kept)


def test_a_run_resolves_to_its_best_checkpoint(home: Home) -> None:
    run = home.run("a", {1: 2.0, 2: 1.0, 3: 1.5})
    assert home.find("runs/a") == (checkpoint_directory(run, 2), None, None)
    assert home.find(str(run)) == (checkpoint_directory(run, 2), None, None)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "manifest.json"])
def test_a_run_falls_back_with_a_warning(home: Home, name: str) -> None:
    run = home.run("a", {1: 2.0, 2: 1.0, 3: 1.5})
    damage(checkpoint_directory(run, 2), name)
    model, note, warning = home.find("runs/a")
    assert model == checkpoint_directory(run, 3)
    assert note is None
    assert warning is not None
    assert "step-00000002" in warning
    assert "step-00000003" in warning


def test_an_explicit_checkpoint_never_falls_back(home: Home) -> None:
    run = home.run("a", {1: 2.0, 2: 1.0})
    path = checkpoint_directory(run, 2)
    assert home.find(str(path)) == (path, None, None)
    damage(path, "manifest.json")
    with pytest.raises(DataError, match=r"step-00000002/manifest\.json: "):
        home.find(str(path))


def test_a_run_whose_checkpoints_are_all_damaged(home: Home) -> None:
    run = home.run("a", {1: 2.0, 2: 1.0})
    damage(checkpoint_directory(run, 1))
    damage(checkpoint_directory(run, 2), "manifest.json")
    with pytest.raises(DataError, match="every checkpoint is damaged"):
        home.find("runs/a")


def test_a_run_without_checkpoints(home: Home) -> None:
    run = home.folder / "runs" / "a"
    run.mkdir(parents=True)
    (run / "run.json").write_bytes(b"{}")
    with pytest.raises(NoInputError, match="no checkpoint was saved"):
        home.find("runs/a")


def test_a_checkpoint_that_is_pruned_meanwhile(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    run = home.run("a", {1: 2.0, 2: 1.0})
    checkpoints = list_checkpoints(run)
    shutil.rmtree(checkpoint_directory(run, 2))
    monkeypatch.setattr("quickfox.checkpoints.run_directory.list_checkpoints", lambda run, damaged: checkpoints)
    assert find_best_model(run) == (checkpoint_directory(run, 1), None)


def test_a_listed_checkpoint_that_is_pruned_meanwhile_is_skipped(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    run = home.run("a", {1: 2.0, 2: 1.0, 3: 1.5})
    shutil.rmtree(checkpoint_directory(run, 2))
    directories = [checkpoint_directory(run, step) for step in (1, 2, 3)]
    monkeypatch.setattr("quickfox.checkpoints.run_directory.list_checkpoint_directories", lambda run: directories)

    def read_and_remove(directory: Path) -> Manifest:
        manifest = read_manifest(directory)
        if directory == checkpoint_directory(run, 3):
            shutil.rmtree(directory)
        return manifest

    monkeypatch.setattr("quickfox.checkpoints.run_directory.read_manifest", read_and_remove)
    assert list_runs(home.folder / "runs") == [run]
    assert steps_of(run) == [1]


def test_without_a_path_the_newest_run_is_used(home: Home) -> None:
    newer = home.run("a", {1: 1.0})
    older = home.run("b", {1: 1.0})
    home.run("a", {2: 3.0})
    (home.folder / "runs" / "empty").mkdir()
    assert list_runs(home.folder / "runs") == [newer, older]
    model, note, _ = home.find()
    assert model == checkpoint_directory(newer, 1)
    assert note == f"model: {model} (the newest run)"


def test_the_path_has_priority_over_the_variable_and_the_variable_over_the_newest_run(home: Home) -> None:
    home.run("a", {1: 1.0})
    other = home.run("b", {1: 1.0, 2: 0.5})
    home.run("a", {2: 1.0})
    model, note, _ = home.find(QUICKFOX_MODEL="runs/b")
    assert model == checkpoint_directory(other, 2)
    assert note == f"model: {model} (from $QUICKFOX_MODEL)"
    assert home.find("runs/a", QUICKFOX_MODEL="runs/b")[0].parent.parent.name == "a"
    assert home.find(QUICKFOX_MODEL="")[0].parent.parent.name == "a"
    with pytest.raises(NoInputError, match="nowhere"):
        home.find(QUICKFOX_MODEL="nowhere")


def test_the_former_variable_is_not_read_and_a_path_in_it_gives_a_hint(home: Home, model_directory: Path) -> None:
    with pytest.raises(NoInputError, match=r"\$LLM_MODEL is not read: set \$QUICKFOX_MODEL to .* instead, or name"):
        home.find(LLM_MODEL=str(model_directory))
    newest = home.run("a", {1: 1.0})
    for value in ("runs/a", "runs/a/checkpoints/step-00000001", str(model_directory)):
        model, note, _ = home.find(LLM_MODEL=value)
        assert model == checkpoint_directory(newest, 1)
        assert note is not None
        hint = f"$LLM_MODEL is not read: set $QUICKFOX_MODEL to {value} instead"
        assert note.splitlines() == [hint, f"model: {model} (the newest run)"]
    assert home.find("runs/a", LLM_MODEL="runs/a")[1] is None
    assert home.find(QUICKFOX_MODEL="runs/a", LLM_MODEL="runs/a")[1] == f"model: {model} (from $QUICKFOX_MODEL)"


@pytest.mark.parametrize("value", ["gpt-4.1", "", "nowhere/runs", ".", "x" * 5000])
def test_the_former_variable_with_another_value_is_ignored(home: Home, value: str) -> None:
    home.run("a", {1: 1.0})
    assert home.find(LLM_MODEL=value) == home.find()


def test_the_note_and_the_warning_are_one_line_each(home: Home) -> None:
    run = home.run("a", {1: 1.0, 2: 2.0})
    damage(checkpoint_directory(run, 1))
    model, note, warning = home.find()
    assert note == f"model: {model} (the newest run)"
    assert warning is not None
    assert len(warning.splitlines()) == 1


def test_no_model(home: Home) -> None:
    with pytest.raises(NoInputError, match="llm train"):
        home.find()
    with pytest.raises(NoInputError, match="nowhere"):
        home.find("nowhere")
    with pytest.raises(DataError, match="is not a model"):
        home.find(".")


@pytest.mark.parametrize("name", ["model.keras", "model.h5", "model.pt", "model.pkl", "model.gguf", "notes.txt"])
def test_files_of_other_programs_are_not_opened(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / name).write_bytes(b"cos\nsystem\n(S'touch harm'\ntR.")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / name).write_bytes(b"PK\x03\x04")
    monkeypatch.setattr(Path, "open", lambda *args, **options: pytest.fail("opened"))
    monkeypatch.setattr(Path, "read_bytes", lambda *args, **options: pytest.fail("read"))
    for path in (name, "folder"):
        with pytest.raises(DataError, match="is not a model"):
            find_model(path, {}, tmp_path)


@pytest.mark.parametrize("name", ["x" * 300, "a/" * 3000])
def test_a_path_that_is_too_long(tmp_path: Path, name: str) -> None:
    with pytest.raises((NoInputError, StorageError)):
        find_model(name, {}, tmp_path)


def test_a_run_whose_checkpoints_cannot_be_used_is_named_and_skipped(home: Home) -> None:
    older = home.run("older", {1: 2.0})
    newer = home.run("newer", {1: 2.0})
    damage(checkpoint_directory(newer, 1), "model.safetensors")
    model, _, warning = home.find()
    assert model == checkpoint_directory(older, 1)
    assert re.fullmatch(f".*{newer}.*; this run is skipped", warning or "")
