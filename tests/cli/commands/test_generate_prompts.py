"""`llm generate` with prompts from a file, and compared with a corpus by `--novelty` and `--max-copy`."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Llm = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def generate(llm: Llm, model_directory: Path) -> Llm:
    """`llm generate` with the random model."""
    return lambda *arguments, **settings: llm("generate", "--model", model_directory, *arguments, **settings)


def test_prompts_are_continued_in_order_with_their_own_settings(generate: Llm) -> None:
    lines = [
        json.dumps("fox"),
        "",
        json.dumps({"prompt": "cat", "length": 3, "temperature": 0}),
        json.dumps({"seed": "a", "num_samples": 2, "stop": ["e", "a"]}),
    ]
    result = generate("--prompts", "-", "--length", "7", "--random-seed", "4", input="\n".join(lines))
    answers = [json.loads(line) for line in result.stdout.splitlines()]
    assert [(answer["line"], answer["seed"], answer["sample"]) for answer in answers] == [
        (1, "fox", 0),
        (3, "cat", 0),
        (4, "a", 0),
        (4, "a", 1),
    ]
    assert [answer["tokens"] for answer in answers[:2]] == [7, 3]
    assert answers[0]["text"] + "\n" == generate("--seed", "fox", "--length", "7", "--random-seed", "4").stdout
    assert (result.returncode, result.stderr) == (0, "")


def test_an_invalid_line_is_reported_and_the_others_are_continued(generate: Llm, tmp_path: Path) -> None:
    bad = [
        "{",
        "3",
        "{}",
        '{"prompt": 1}',
        '{"prompt": "a", "lenght": 2}',
        '{"prompt": "a", "top_p": 7}',
        '{"prompt": "a", "logit_bias": [["th", 1]]}',
    ]
    lines = ['"a"', *bad, '"b"']
    (tmp_path / "prompts.jsonl").write_text("\n".join(lines))
    result = generate("--prompts", "prompts.jsonl", "--length", "2", "--random-seed", "1")
    assert [json.loads(line)["line"] for line in result.stdout.splitlines()] == [1, len(lines)]
    messages = result.stderr.splitlines()
    assert len(messages) == len(bad) + 1
    for number, line in enumerate(messages[:-1], start=2):
        assert f"prompts.jsonl line {number}" in line
    assert "7 prompts could not be continued" in messages[-1]
    assert result.returncode == 65


def test_replaced_characters_of_many_prompts_are_reported_in_one_line(generate: Llm) -> None:
    result = generate("--prompts", "-", "--length", "0", "--random-seed", "1", input='"é€"\n"é"\n"€€"\n')
    assert len(result.stdout.splitlines()) == 3
    assert result.stderr == (
        "warning: replaced 'é' by 'e' (2); left out 3 characters that the model does not know: '€' (U+20AC)\n"
    )


def test_a_missing_file_of_prompts(generate: Llm) -> None:
    assert generate("--prompts", "nowhere.jsonl").returncode == 66


def test_novelty_reports_the_longest_copy_of_each_sample(generate: Llm, tmp_path: Path) -> None:
    arguments = ("--seed", "a", "--length", "60", "--random-seed", "1", "--no-echo", "--num-samples", "2")
    first, second = generate(*arguments).stdout.split("\n---\n")
    (tmp_path / "corpus.txt").write_text(f"0123456789{first[10:45]}0123456789{second[3:9]}012")
    result = generate(*arguments, "--novelty", "corpus.txt")
    assert f"sample 0: longest stretch copied from the corpus: 35 characters, {first[10:45]!r}" in result.stderr
    answers = [
        json.loads(line) for line in generate(*arguments, "--novelty", "corpus.txt", "--json").stdout.splitlines()
    ]
    assert answers[0]["longest_copy"] == {"characters": 35, "text": first[10:45], "position": 10}
    assert answers[1]["longest_copy"]["characters"] >= 6


def test_max_copy_limits_copies_from_the_corpus(generate: Llm, tmp_path: Path) -> None:
    arguments = ("--seed", "a", "--length", "60", "--temperature", "0", "--no-echo")
    greedy = generate(*arguments).stdout
    (tmp_path / "corpus.txt").write_text("a" + greedy)
    result = generate(*arguments, "--novelty", "corpus.txt", "--max-copy", "7", "--json")
    answer = json.loads(result.stdout)
    assert answer["longest_copy"]["characters"] <= 7
    assert answer["tokens"] == 60
    assert answer["text"][:6] == greedy[:6], "text within the limit is unchanged"


def test_the_id_of_a_prompt_is_in_its_answers(generate: Llm) -> None:
    lines = '{"id": [1, "x"], "prompt": "a", "num_samples": 2}\n{"prompt": "b"}\n'
    result = generate("--prompts", "-", "--length", "2", "--random-seed", "1", input=lines)
    answers = [json.loads(line) for line in result.stdout.splitlines()]
    assert [answer.get("id", "none") for answer in answers] == [[1, "x"], [1, "x"], "none"]


def test_a_text_file_has_a_prompt_per_line(generate: Llm, tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_text("fox\n\ncat\n")
    result = generate("--prompts", "lines.txt", "--length", "2", "--random-seed", "1")
    answers = [json.loads(line) for line in result.stdout.splitlines()]
    assert [(answer["line"], answer["seed"]) for answer in answers] == [(1, "fox"), (3, "cat")]
    assert (result.returncode, result.stderr) == (0, "")


def test_waiting_for_a_prompt_in_a_silent_pipe_is_said(
    program: list[str], environment: dict[str, str], model_directory: Path
) -> None:
    command = [*program, "generate", "--model", str(model_directory), "--length", "2", "--random-seed", "1"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=environment) as process:
        assert process.stderr is not None
        assert process.stderr.readline().startswith("waiting for a prompt on standard input")
        output, _ = process.communicate("fox")
    assert output.startswith("fox")
    assert process.returncode == 0


def test_text_in_a_pipe_that_an_option_replaces_is_reported(llm_process: Llm, model_directory: Path) -> None:
    arguments = ("generate", "--model", model_directory, "--length", "2", "--random-seed", "1")
    result = llm_process(*arguments, "--seed", "fox", input="cat\n")
    assert result.stdout.startswith("fox")
    assert result.stderr == "the text on standard input is not read: --seed gives the text to continue\n"
    assert llm_process(*arguments, "--seed", "fox", input="").stderr == ""


def test_all_samples_are_written_before_the_next_prompt_is_read(
    program: list[str], model_directory: Path, environment: dict[str, str]
) -> None:
    options = ["--model", str(model_directory), "--prompts", "-", "--num-samples", "2", "--length", "3"]
    command = [*program, "generate", *options]
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for line in (1, 2, 3):
            process.stdin.write(b'"the fox"\n')
            process.stdin.flush()
            answers = [json.loads(process.stdout.readline()) for _ in range(2)]
            assert [answer["line"] for answer in answers] == [line, line]
        process.stdin.close()
    assert process.returncode == 0
