"""`llm score`: a filter over lines or documents."""

import dataclasses
import gzip
import json
import math
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import quickfox
from quickfox.checkpoints.checkpoint import load_model, save_checkpoint
from quickfox.files.json import parse_json

Llm = Callable[..., subprocess.CompletedProcess[Any]]

LINES = ["the quick brown fox", "jumps", "", "over the lazy dog", "zzzzzz", "äß\tx"]
TEXT = "".join(f"{line}\n" for line in LINES).replace("\t", " ")

only_posix = pytest.mark.skipif(sys.platform == "win32", reason="pipes and /dev/full of POSIX")


@pytest.fixture
def score(llm: Llm, model_directory: Path) -> Llm:
    """`llm score` with the random model."""
    return lambda *arguments, **settings: llm("score", "--model", model_directory, *arguments, **settings)


@pytest.fixture(scope="module")
def bits(model_directory: Path) -> Callable[[str], float]:
    """Measures the bits per character of a line with the Python API."""
    model = quickfox.load(model_directory)

    def measure(line: str) -> float:
        mean = model.score([line])[0].bits_per_character
        assert mean is not None
        return mean

    return measure


def records(result: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_each_line_is_a_row(score: Llm, model_directory: Path) -> None:
    result = score(input=TEXT)
    assert (result.returncode, result.stderr) == (0, "")
    rows = [line.split("\t") for line in result.stdout.splitlines()]
    assert [row[-1] for row in rows] == TEXT.splitlines()
    assert rows[2] == ["-", "-", "3", "-", "-", ""]
    scored = quickfox.load(model_directory).score(["jumps"])[0]
    peak = scored.peak
    assert peak is not None
    expected = [f"{scored.bits_per_character:.4f}", f"{scored.perplexity:.4f}", f"2:{peak + 1}"]
    assert rows[1] == [*expected, "jumps"[peak], f"{scored.bits[peak]:.4f}", "jumps"]


def test_files_are_named_if_there_are_several(score: Llm, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("fox\n\n")
    (tmp_path / "b.txt").write_text("dog\ncat")
    assert score("a.txt").stdout.splitlines()[0].split("\t")[2].startswith("1:")
    places = [line.split("\t")[2] for line in score("a.txt", "b.txt").stdout.splitlines()]
    assert [place.rsplit(":", 1)[0] for place in places] == ["a.txt:1", "a.txt", "b.txt:1", "b.txt:2"]
    assert score(".").stdout == score("a.txt", "b.txt").stdout
    assert score("a.txt", "-", input="owl\n").stdout.splitlines()[2].split("\t")[2].startswith("-:1:")


def test_json_has_the_results_of_the_api(score: Llm, model_directory: Path) -> None:
    first, empty = records(score("--json", input="foxes€\n\n"))
    scored = quickfox.load(model_directory).score(["foxes"])[0]
    assert scored.peak is not None
    assert first == {
        "file": "-",
        "line": 1,
        "text": "foxes€",
        "characters": 5,
        "tokens": 5,
        "unknown_characters": 1,
        "bits_per_character": pytest.approx(scored.bits_per_character),
        "perplexity": pytest.approx(scored.perplexity),
        "most_surprising": {
            "line": 1,
            "column": scored.peak + 1,
            "character": "foxes"[scored.peak],
            "bits": pytest.approx(scored.bits[scored.peak]),
        },
    }
    assert (empty["bits_per_character"], empty["perplexity"], empty["most_surprising"]) == (None, None, None)


def test_a_document_is_one_text(score: Llm, model_directory: Path, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(TEXT)
    scored = quickfox.load(model_directory).score([TEXT])[0]
    assert scored.peak is not None
    (record,) = records(score("--by", "document", "--json", "a.txt"))
    assert record["bits_per_character"] == pytest.approx(scored.bits_per_character)
    assert record["characters"] == len(TEXT)
    assert "text" not in record
    peak = record["most_surprising"]
    lines = TEXT.split("\n")
    assert lines[peak["line"] - 1][peak["column"] - 1 :][:1] in (peak["character"], "")
    assert sum(len(line) + 1 for line in lines[: peak["line"] - 1]) + peak["column"] - 1 == scored.peak
    assert len(score("--by", "document", input=TEXT).stdout.split("\t")) == 5


def test_filters_print_lines_unchanged(score: Llm, bits: Callable[[str], float]) -> None:
    def filter_lines(*arguments: object) -> bytes:
        result = score(*arguments, input=b"the fox\r\nqqqq\n\nthe dog", encoding=None)
        assert result.returncode == 0
        return result.stdout

    lines = {b"the fox\r\n": bits("the fox"), b"qqqq\n": bits("qqqq"), b"the dog\n": bits("the dog")}
    threshold = (bits("the fox") + bits("qqqq")) / 2
    above, below = filter_lines("--above", threshold), filter_lines("--below", threshold)
    assert above == b"".join(line for line, mean in lines.items() if mean > threshold)
    assert below == b"".join(line for line, mean in lines.items() if mean < threshold)
    assert above
    assert below
    assert filter_lines("--above", 0, "--below", 1000) == b"".join(lines)
    assert filter_lines("--above", 1000) == b""


def test_filters_select_json_and_name_documents(score: Llm, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("fox\n")
    (tmp_path / "b.txt").write_text("")
    assert [record["text"] for record in records(score("--json", "--above", 0, input="fox\n\n"))] == ["fox"]
    assert score("--by", "document", "--above", 0, "a.txt", "b.txt").stdout == "a.txt\n"


def test_top_prints_the_highest_surprisal_first(score: Llm, bits: Callable[[str], float]) -> None:
    lines = sorted(filter(None, TEXT.splitlines()), key=bits, reverse=True)
    rows = score("--top", 3, input=TEXT).stdout.splitlines()
    assert [row.split("\t")[-1] for row in rows] == lines[:3]
    assert score("--top", 2, "--above", 0, input=TEXT).stdout.splitlines() == lines[:2]
    assert len(score("--top", 99, input=TEXT).stdout.splitlines()) == len(lines)


def test_heat_colors_the_text(score: Llm) -> None:
    result = score("--heat", input="the\x1b[2J fox\nzebra")
    assert "\x1b[38;5;16;48;5;" in result.stdout
    assert re.sub(r"\x1b\[[0-9;]*m", "", result.stdout) == "the\\x1b[2J fox\nzebra\n"
    document = score("--heat", "--by", "document", input="the fox\nzebra\n")
    assert re.sub(r"\x1b\[[0-9;]*m", "", document.stdout) == "the fox\nzebra\n"


def test_the_score_of_a_line_depends_neither_on_its_end_nor_on_other_lines(score: Llm) -> None:
    ends = records(score("--json", input="fox\nfox\r\ndog\n" + "cat " * 3000 + "\nfox"))
    assert [record["text"] for record in ends if len(record["text"]) == 3] == ["fox", "fox", "dog", "fox"]
    first, second, last = (record["bits_per_character"] for record in ends if record["text"] == "fox")
    assert first == pytest.approx(second, abs=1e-5)
    assert first == pytest.approx(last, abs=1e-5)


def test_lines_longer_than_a_chunk(score: Llm, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("ab " * 100_000 + "\nfox")
    long, short = records(score("--json", "a.txt"))
    assert (long["characters"], short["text"], short["line"]) == (300_000, "fox", 2)
    assert records(score("--json", input=(tmp_path / "a.txt").read_text()))[0]["characters"] == 300_000


@only_posix
def test_a_line_is_answered_before_the_next_is_written(
    program: list[str], model_directory: Path, environment: dict[str, str]
) -> None:
    command = [*program, "score", "--model", str(model_directory), "--above", "0"]
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for line in (b"fox\n", b"dog\n", "äß\n".encode()):
            process.stdin.write(line)
            process.stdin.flush()
            assert process.stdout.readline() == line
        process.stdin.close()
    assert process.returncode == 0


def test_documents_are_recognized_by_content_and_scored_each_as_one_text(score: Llm, tmp_path: Path) -> None:
    texts = ["the quick\nbrown fox", "jumps"]
    lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
    (tmp_path / "documents.jsonl").write_text(lines)
    (tmp_path / "table.csv").write_text(f'id,text\n1,"{texts[0]}"\n2,{texts[1]}\n')
    expected = records(score("--json", "documents.jsonl"))
    assert [(record["line"], record["text"]) for record in expected] == list(enumerate(texts, start=1))
    for record, text in zip(expected, texts, strict=True):  # the line of a peak is that in its document
        peak = record["most_surprising"]
        assert text.split("\n")[peak["line"] - 1][peak["column"] - 1 :][:1] in (peak["character"], "")
    rows = [line.split("\t") for line in score("documents.jsonl").stdout.splitlines()]
    assert [row[5] for row in rows] == ["the quick\\nbrown fox", "jumps"]
    assert [row[2].split(":")[0] for row in rows] == ["1", "2"]
    piped = score("--json", input=lines)
    assert piped.stderr.count("starts as JSON; --format text scores each line when it comes") == 1
    for result in (piped, score("--json", "table.csv"), score("--json", input=(tmp_path / "table.csv").read_text())):
        assert [{**record, "file": "documents.jsonl"} for record in records(result)] == expected
    as_lines = score("--json", "--format", "text", input=lines)
    assert [record["text"] for record in records(as_lines)] == lines.splitlines()
    assert "starts as" not in as_lines.stderr


def test_unknown_characters_are_named_once_and_refused_by_strict(score: Llm) -> None:
    result = score(input="a€\nb€c\n")
    assert len(result.stdout.splitlines()) == 2
    assert result.stderr.count("\n") == 1
    assert "left out 2 characters that the model does not know: '€' (U+20AC)" in result.stderr
    refused = score("--strict", input="a€\n")
    assert (refused.returncode, refused.stdout) == (65, "")
    assert "U+20AC" in refused.stderr


def test_text_that_is_not_utf8_is_refused_after_earlier_lines(score: Llm, tmp_path: Path) -> None:
    data = b"\xef\xbb\xbffox\ndog\ncat \xff\nowl\n"
    result = score("--above", 0, input=data, encoding=None)
    assert (result.returncode, result.stdout) == (65, b"fox\ndog\n")
    assert result.stderr.decode().startswith("llm: standard input: not UTF-8 in line 3, at byte 15 (0xff); convert it")
    (tmp_path / "bad.txt").write_bytes(data)
    result = score("--above", 0, "bad.txt", encoding=None)
    assert (result.returncode, result.stdout) == (65, b"")
    assert b"bad.txt: not UTF-8 at byte 15" in result.stderr


def test_gzip_byte_order_marks_and_empty_files(score: Llm, tmp_path: Path) -> None:
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"fox\n"))
    (tmp_path / "b.txt").write_bytes(b"\xef\xbb\xbffox\n")
    (tmp_path / "empty.txt").write_bytes(b"")
    expected = score(input="fox\n").stdout
    assert score("a.txt.gz").stdout == score("b.txt").stdout == score(input="\ufefffox\n").stdout == expected
    assert score("empty.txt", "a.txt.gz", "--above", 0).stdout == "fox\n"
    empty = score("empty.txt")
    assert (empty.returncode, empty.stdout, empty.stderr) == (0, "", "")
    assert score(input="").stdout == ""


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["missing.txt"], 66, "missing.txt: no such file"),
        (["a" * 5000], 74, "File name too long"),
        (["--heat", "--json"], 2, "--heat and --json exclude each other"),
        (["--top", "0"], 2, "--top"),
        (["--by", "word"], 2, "'word'"),
    ],
)
def test_errors_are_one_line(score: Llm, arguments: list[str], status: int, message: str) -> None:
    result = score(*arguments, input="fox\n")
    assert (result.returncode, result.stdout) == (status, "")
    assert result.stderr.count("\n") == 1
    assert message in result.stderr


def test_infinite_perplexity_is_null_in_json(llm: Llm, model_directory: Path, tmp_path: Path) -> None:
    bundle = load_model(model_directory)
    bias = bundle.parameters["output.bias"].copy()
    bias[0] = 1e4
    parameters = {**bundle.parameters, "output.bias": bias}
    save_checkpoint(tmp_path / "sure", dataclasses.replace(bundle, parameters=parameters), None)
    result = llm("score", "--model", "sure", "--json", input="fox\n")
    measured = parse_json(result.stdout.encode(), "standard output")
    assert measured["perplexity"] is None
    assert measured["bits_per_character"] == pytest.approx(1e4 / math.log(2), rel=1e-2)


@only_posix
def test_a_closed_pipe_and_a_full_disk(
    program: list[str], model_directory: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "a.txt").write_text(TEXT * 1000)
    command = [*program, "score", "--model", str(model_directory), str(tmp_path / "a.txt")]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141
    with Path("/dev/full").open("w") as full:
        result = subprocess.run(command, env=environment, stdout=full, stderr=subprocess.PIPE, encoding="utf-8")
    assert result.returncode == 74
    assert result.stderr == "llm: cannot write to standard output: No space left on device\n"
