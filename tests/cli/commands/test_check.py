"""`llm check`: its table, its JSON, its exit status and its cleaned copies."""

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

Llm = Callable[..., CompletedProcess[str]]

DAMAGED = "The quick brown fox\r\njumps over\nthe lazy dog\ufffd.\n"


def test_faults_are_listed_and_the_status_is_0(llm: Llm, tmp_path: Path) -> None:
    (tmp_path / "fox.txt").write_bytes(DAMAGED.encode())
    result = llm("check", "fox.txt")
    assert (result.returncode, result.stderr) == (0, "")
    assert "replacement-character: 1, fox.txt, line 3: " in result.stdout
    assert "mixed-line-ends: 1, fox.txt, line " in result.stdout
    assert "advice: --tokenizer char" in result.stdout


def test_fail_on_a_kind_that_is_found_has_status_65(llm: Llm, tmp_path: Path) -> None:
    (tmp_path / "fox.txt").write_bytes(DAMAGED.encode())
    assert llm("check", "fox.txt", "--fail-on", "overlap").returncode == 0
    for kind in ("replacement-character", "any"):
        result = llm("check", "fox.txt", "--fail-on", kind)
        assert (result.returncode, result.stderr.count("\n")) == (65, 1)
    refused = llm("check", "fox.txt", "--fail-on", "typo")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "--fail-on 'typo'" in refused.stderr


def test_json_has_the_faults_and_the_changes(llm: Llm, tmp_path: Path) -> None:
    (tmp_path / "fox.txt").write_bytes(DAMAGED.encode())
    (tmp_path / "dog.txt").write_bytes(b"the lazy dog sleeps\n")
    result = llm("check", "fox.txt", "--against", "dog.txt", "--fix", "clean", "--json")
    values = json.loads(result.stdout)
    assert {"mixed-line-ends", "replacement-character", "too-small"} == {each["kind"] for each in values["findings"]}
    assert values["overlap"] == 0.0
    assert values["changes"] == [{"where": "fox.txt", "kind": "mixed-line-ends", "count": 1}]
    assert (tmp_path / "clean/fox.txt").read_bytes() == DAMAGED.replace("\r", "").encode()
