"""Options built from configurations, their headings in the help, and the shared loader of a model."""

import dataclasses
import inspect
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any, get_args, get_origin

import pytest
import typer

from quickfox.cli import COMMANDS, app
from quickfox.cli.options import options_from, parameters_by_heading, parse_logit_bias
from quickfox.config.sampling import SamplingConfig
from quickfox.config.schema import Group, choices
from quickfox.config.training import TrainingRequest
from quickfox.errors import UsageError

Llm = Callable[..., CompletedProcess[str]]

PROGRAM: Any = typer.main.get_command(app.build_app([]))
HEADINGS = {
    "check": ["Arguments", "Corpus and tokenizer", "Options"],
    "score": ["Arguments", "Corpus and tokenizer", "Options"],
    "evaluate": ["Arguments", "Corpus and tokenizer", "Options"],
    "build-vocab": ["Arguments", "Corpus and tokenizer", "Options"],
    "train": [
        "Arguments",
        "Corpus and tokenizer",
        "Model",
        "Optimization",
        "Run and checkpoints",
        "Devices",
        "Output",
    ],
    "generate": ["Prompt", "Sampling", "Length and stopping", "Output"],
}


def fields() -> list[tuple[str, Any]]:
    """Each field of a configuration whose fields are options, with the command."""
    configs = {"train": TrainingRequest, "generate": SamplingConfig}
    return [(command, field) for command, config in configs.items() for field in dataclasses.fields(config)]


every_field = pytest.mark.parametrize(
    ("command", "field"), fields(), ids=lambda value: value if isinstance(value, str) else value.name
)


@every_field
def test_each_field_is_one_option_with_its_help_and_group(command: str, field: Any) -> None:
    name = "--" + field.name.replace("_", "-")
    (option,) = [option for option in PROGRAM.commands[command].params if name in option.opts]
    assert option.name == field.name
    assert option.help == field.metadata["help"]
    assert option.rich_help_panel == field.metadata["group"]
    assert option.secondary_opts == []  # no --no-...
    assert option.multiple == (get_origin(field.type) is tuple)
    assert option.is_flag == (field.type == bool | None)
    allowed = () if field.name == "ngram" else choices(field.type)  # a word or a number, which has its own parser
    assert tuple(getattr(option.type, "choices", ())) == allowed


@every_field
def test_the_help_of_a_field_is_a_sentence_that_ends_with_its_default(command: str, field: Any) -> None:
    sentences = field.metadata["help"].split(". ")
    assert field.metadata["help"].endswith(".")
    assert len(sentences) == 1 or (len(sentences) == 2 and sentences[1].startswith("Default: "))
    assert field.metadata["group"] in get_args(Group)[1:]


def call(config: type, **values: Any) -> dict[str, Any]:
    """What a command receives as settings when Typer has read these values."""
    received: dict[str, Any] = {}

    @options_from(config)
    def run(first: str, *, last: bool = False, **settings: Any) -> None:
        received.update(settings)

    assert list(inspect.signature(run).parameters) == [
        "first",
        *(field.name for field in dataclasses.fields(config)),
        "last",
    ]
    run(**{"first": "a", "last": True} | dict.fromkeys(field.name for field in dataclasses.fields(config)) | values)
    return received


def test_a_command_receives_only_the_options_that_were_given() -> None:
    assert call(TrainingRequest) == {}
    assert call(TrainingRequest, hidden_dim=0, freeze_embeddings=True) == {"hidden_dim": 0, "freeze_embeddings": True}


def test_values_are_parsed() -> None:
    assert call(TrainingRequest, budget="1.5m") == {"budget": 90.0}
    assert call(SamplingConfig, stop=["a", "b"], logit_bias=["e=-2", "==1"]) == {
        "stop": ("a", "b"),
        "logit_bias": (("e", -2.0), ("=", 1.0)),
    }
    with pytest.raises(UsageError, match="budget: 'soon' is") as error:
        call(TrainingRequest, budget="soon")
    assert error.value.settings == ("budget",)


@pytest.mark.parametrize(("text", "value"), [("auto", "auto"), ("off", "off"), ("1", 1), ("16", 16), ("007", 7)])
def test_an_ngram_order_is_a_word_or_a_number(text: str, value: str | int) -> None:
    settings = call(TrainingRequest, ngram=text)
    assert settings == {"ngram": value}
    assert TrainingRequest(**settings).ngram == value


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("0", "--ngram must be at least 1, not 0"),
        ("40", "--ngram must be at most 16, not 40"),
        *(
            (text, f"--ngram must be auto, off or a number from 1 to 16, not {text!r}")
            for text in ("", "x", "Auto", "-1", "5.0", "1_0", " 5", "٣", "²", "1e1")
        ),
        ("9" * 5000, "--ngram must be auto, off or a number from 1 to 16, not '999999999999...9999999999999'"),
    ],
    ids=lambda value: value[:20],
)
def test_an_ngram_order_that_is_neither_a_choice_nor_in_range(llm: Llm, text: str, reason: str) -> None:
    result = llm("train", "corpus.txt", "--ngram", text)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == f"llm: {reason}\n"


@pytest.mark.parametrize("text", ["e", "e=", "=", "e=x", ""])
def test_a_logit_bias_without_a_number_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=f"logit_bias must be TEXT=X, such as e=-2, not {text!r}"):
        parse_logit_bias(text)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_lists_the_options_under_headings(llm: Llm, name: str) -> None:
    expected = HEADINGS.get(name, ["Arguments", "Options"])
    text = llm(name, "--help").stdout
    headings = [line.removesuffix(":") for line in text.splitlines() if line.endswith(":") and line[0] != " "]
    assert [heading for heading in headings if heading != "Examples"] == expected
    command = PROGRAM.commands[name]
    sections = parameters_by_heading(command, typer.Context(command))
    assert list(sections) == expected
    for heading, parameters in sections.items():
        section = text.partition(f"\n{heading}:\n")[2].partition("\n\n")[0]
        for parameter in parameters:
            assert (parameter.metavar if heading == "Arguments" else max(parameter.opts, key=len)) in section


@pytest.mark.parametrize(("columns", "widest"), [("64", 62), ("80", 78), ("100", 98), ("300", 98)])
@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["generate", "--help"]])
def test_the_help_is_as_wide_as_the_terminal_up_to_100_columns(
    llm: Llm, environment: dict[str, str], columns: str, widest: int, arguments: list[str]
) -> None:
    text = llm(*arguments, env=environment | {"COLUMNS": columns}).stdout
    options = text.partition("Examples:")[0].partition("First steps:")[0]
    longest = max(map(len, options.splitlines()))
    assert widest - 15 < longest <= widest


def test_the_help_of_the_program_shows_the_first_sentence_of_each_command(
    llm: Llm, environment: dict[str, str]
) -> None:
    text = " ".join(llm("--help", env=environment | {"COLUMNS": "60"}).stdout.split())
    for name, command in PROGRAM.commands.items():
        assert command.short_help.endswith(".")
        assert f" {name} {command.short_help} " in text
        assert inspect.getdoc(command.callback).startswith(command.short_help)


@pytest.mark.parametrize("command", ["generate", "evaluate", "score"])
def test_the_default_model_is_announced_in_one_line(
    llm: Llm, model_directory: Path, environment: dict[str, str], command: str
) -> None:
    arguments = {"generate": ["--temperature", "0", "--length", "1"], "evaluate": ["-"], "score": []}[command]
    result = llm(command, *arguments, env=environment | {"QUICKFOX_MODEL": str(model_directory)}, input="fox\n")
    assert result.returncode == 0
    assert result.stderr == f"model: {model_directory} (from $QUICKFOX_MODEL)\n"
    assert llm(command, *arguments, "--model", model_directory, input="fox\n").stderr == ""


@pytest.mark.parametrize("command", ["generate", "evaluate", "score"])
def test_a_path_in_the_former_variable_gives_a_hint(
    llm: Llm, model_directory: Path, environment: dict[str, str], command: str
) -> None:
    arguments = ["-"] if command == "evaluate" else []
    result = llm(command, *arguments, env=environment | {"LLM_MODEL": str(model_directory)}, input="fox\n")
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (66, "", 1)
    assert f"$LLM_MODEL is not read: set $QUICKFOX_MODEL to {model_directory} instead" in result.stderr
    other = llm(command, *arguments, env=environment | {"LLM_MODEL": "gpt-4.1"}, input="fox\n")
    assert "LLM_MODEL" not in other.stderr
