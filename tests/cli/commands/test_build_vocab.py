"""`llm build-vocab`: the file it writes and the table it shows."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Llm = Callable[..., subprocess.CompletedProcess[Any]]


def cells(table: str) -> dict[str, str]:
    """A table of two columns."""
    return dict(line.split("  ", 1) for line in table.splitlines())


def test_the_vocabulary_has_the_characters_of_all_sources(llm: Llm, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("banana\n")
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "b.txt").write_text("nän\n")
    result = llm("build-vocab", "a.txt", "more", "-o", "chars.json")
    assert (result.returncode, result.stdout) == (0, "")
    assert json.loads((tmp_path / "chars.json").read_text())["characters"] == ["\n", "a", "b", "n", "ä"]
    table = {name: value.strip() for name, value in cells(result.stderr).items()}
    assert table["characters"] == "11"
    assert table["distinct"] == "5"
    assert table["rarest"] == "'b' 1, 'ä' 1, '\\n' 2, 'a' 3, 'n' 4"
    assert table["coverage"] == "100%"
    assert table["saved"] == "chars.json"


def test_min_count_omits_rare_characters_and_coverage_is_shown(llm: Llm, tmp_path: Path) -> None:
    result = llm("build-vocab", "-", "--min-count", "2", input="aaab")
    assert json.loads((tmp_path / "vocab.json").read_text())["characters"] == ["a"]
    assert "75.0000%" in result.stderr


@pytest.mark.parametrize("option", [["--output=~/v.json"], ["--output", "~/v.json"], ["-o", "~/v.json"]])
def test_a_leading_tilde_in_an_option_is_the_home_directory(llm: Llm, tmp_path: Path, option: list[str]) -> None:
    (tmp_path / "corpus.txt").write_text("fox")
    environment = {**os.environ, "HOME": str(tmp_path / "home")}
    assert llm("build-vocab", "corpus.txt", *option, env=environment).returncode == 73  # there is no such directory
    (tmp_path / "home").mkdir()
    assert llm("build-vocab", "corpus.txt", *option, env=environment).returncode == 0
    assert (tmp_path / "home" / "v.json").exists()
    assert not (tmp_path / "~").exists()


def test_an_error_leaves_no_file(llm: Llm, tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "latin1.txt").write_bytes(b"caf\xe9")
    (tmp_path / "folder").mkdir()
    for arguments, status in (
        (["nowhere.txt"], 66),
        (["empty.txt"], 66),
        (["folder"], 66),
        (["latin1.txt"], 65),
        (["-", "--min-count", "0"], 2),
        (["-", "-o", "nowhere/vocab.json"], 73),
    ):
        result = llm("build-vocab", *arguments, input="some text")
        assert (result.returncode, result.stdout) == (status, "")
        assert result.stderr.startswith("llm: ")
        assert result.stderr.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty.txt", "folder", "latin1.txt"]


def test_tokens_do_not_extend_over_parts_of_documents(llm: Llm, tmp_path: Path) -> None:
    (tmp_path / "pairs.jsonl").write_text((json.dumps({"prompt": "x", "completion": "xx"}) + "\n") * 10)
    result = llm("build-vocab", "pairs.jsonl", "--tokenizer", "bpe")
    table = {name: value.strip() for name, value in cells(result.stderr).items()}
    assert (table["in the vocabulary"], table["tokens"]) == ("257", "20")
