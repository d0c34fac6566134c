"""Options of the commands: built from the configurations, or shared by several commands, and grouped in the help."""

import dataclasses
import functools
import inspect
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

import typer
import typer.core

from quickfox.cli.streams import notify
from quickfox.config.corpus import CorpusOptions
from quickfox.config.schema import Group, choices
from quickfox.errors import UsageError
from quickfox.system.units import parse_duration

if TYPE_CHECKING:
    from quickfox.model import Model


def option(names: str, help: str, group: Group = "", **attributes: Any) -> Any:
    """An option whose help text states its default.

    Args:
        names: `--name` and its aliases, separated by spaces.
        help: one sentence, with the unit and the default.
        group: its heading; "": Output, or Options in a command without groups.
        attributes: further arguments of `typer.Option`.
    """
    return typer.Option(*names.split(), help=help, rich_help_panel=group or None, show_default=False, **attributes)


CORPUS_HELP = (
    "Files, folders (*.txt and *.md in them), globs, zip archives, or - for standard input: text, JSON lines, CSV, "
    "TSV, HTML, EPUB, Parquet; .gz, .bz2 and .xz are decompressed."
)

CorpusArgument = Annotated[list[str], typer.Argument(metavar="CORPUS...", help=CORPUS_HELP, show_default=False)]


def model_option(group: Group = "") -> Any:
    """The option `--model`."""
    help = "Run, checkpoint or model directory. Default: $QUICKFOX_MODEL, else the newest run under ./runs."
    return option("--model", help, group, metavar="DIR")


ModelOption = Annotated[str | None, model_option()]

StrictOption = Annotated[bool, option("--strict", "Refuse characters that the model does not know.")]

JsonOption = Annotated[bool, option("--json", "Print JSON, one object per line.")]

ThreadsOption = Annotated[
    int | None, option("--threads", "Processor threads. Default: all that are available.", metavar="N", min=1)
]


def options_from(config: type) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A decorator that gives a command an option for each field of a configuration.

    The command receives the values of the options that were given as `**settings`, ready for `config(**settings)`.

    Raises:
        UsageError: when the command is called, if a value cannot be parsed.
    """
    fields = {field.name: field for field in dataclasses.fields(config)}
    options = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=_annotation(field))
        for name, field in fields.items()
    ]

    def decorate(run: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(run)
        def command(**values: Any) -> None:
            given = {name: value for name, value in values.items() if name not in fields or value is not None}
            run(**{name: _parse(fields[name], value) if name in fields else value for name, value in given.items()})

        signature = inspect.signature(run)
        own = [parameter for name, parameter in signature.parameters.items() if name != "settings"]
        positional = [parameter for parameter in own if parameter.kind != inspect.Parameter.KEYWORD_ONLY]
        command.__signature__ = signature.replace(  # type: ignore[attr-defined]  # Typer reads it
            parameters=[*positional, *options, *(parameter for parameter in own if parameter not in positional)]
        )
        return command

    return decorate


def with_corpus_options(run: Callable[..., None]) -> Callable[..., None]:
    """A decorator that gives a command the options of `CorpusOptions`, which it receives as `corpus_options`."""

    @functools.wraps(run)
    def command(**values: Any) -> None:
        options = CorpusOptions.take(values)
        run(**values, corpus_options=options)

    signature = inspect.signature(run)
    own = [parameter for name, parameter in signature.parameters.items() if name != "corpus_options"]
    command.__signature__ = signature.replace(parameters=own)  # type: ignore[attr-defined]
    return options_from(CorpusOptions)(command)


def _annotation(field: "dataclasses.Field[Any]") -> Any:
    """The type of an option for this field; None, which every option has in common, stands for the field's default."""
    hint: Any = field.type
    metavar = field.metadata["metavar"]
    if get_origin(hint) is tuple:
        hint = list[str]
    elif field.name in _PARSERS:
        hint = str
    elif allowed := choices(hint):
        hint, metavar = Literal[allowed], "|".join(allowed)
    elif bool in (hint, *get_args(hint)):
        metavar = None
    name = f"--{field.name.replace('_', '-')} {field.metadata['aliases']}"
    return Annotated[hint | None, option(name, field.metadata["help"], field.metadata["group"], metavar=metavar)]


def _parse(field: "dataclasses.Field[Any]", value: Any) -> Any:
    parse = _PARSERS.get(field.name, lambda parsed: parsed)
    return tuple(map(parse, value)) if get_origin(field.type) is tuple else parse(value)


def _parse_budget(text: str) -> float:
    try:
        return parse_duration(text)
    except UsageError as error:
        raise UsageError(f"budget: {error}", "budget") from None


def parse_logit_bias(text: str) -> tuple[str, float]:
    """`e=-2` -> ("e", -2.0).

    Raises:
        UsageError: there is no `=`, or no number after the last.
    """
    token, equals, number = text.rpartition("=")
    try:
        if equals:
            return token, float(number)
    except ValueError:
        pass
    raise UsageError(f"logit_bias must be TEXT=X, such as e=-2, not {text!r}", "logit_bias")


def _parse_ngram(text: str) -> int | str:
    """The order if the text is a number, else the text, which `TrainingRequest` compares with its choices."""
    is_number = text.isascii() and text.isdigit() and len(text) < _MAX_DIGITS
    return int(text) if is_number else text


def _parse_separator(text: str) -> str:
    r"""The text with its escapes \n, \r, \t and \\ replaced."""
    escapes = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\"}
    return re.sub(r"\\([nrt\\])", lambda match: escapes[match[1]], text)


_MAX_DIGITS = 19
"""Python refuses to convert texts of several thousand digits."""

_PARSERS: dict[str, Callable[[Any], Any]] = {
    "budget": _parse_budget,
    "logit_bias": parse_logit_bias,
    "ngram": _parse_ngram,
    "separator": _parse_separator,
}
"""Field name -> parser of its text; Typer parses all other fields."""


_PATH_METAVARS = ("CORPUS", "DIR", "FILE")


class GroupedCommand(typer.core.TyperCommand):
    """A command whose help shows the options of each group under a heading, and whose path options may start with ~."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parses the command line; in the values of options that are paths, a leading ~ is replaced.

        A shell replaces it in `--output ~/run`, but not in `--output=~/run`.
        """
        rest: list[str] = super().parse_args(ctx, args)
        for parameter in self.get_params(ctx):
            if parameter.param_type_name == "option" and str(parameter.metavar).startswith(_PATH_METAVARS):
                ctx.params[parameter.name] = _expand_home(ctx.params[parameter.name])
        return rest

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Writes the arguments and then the options, all names in one column."""
        sections = {
            heading: [record for parameter in parameters if (record := parameter.get_help_record(ctx))]
            for heading, parameters in parameters_by_heading(self, ctx).items()
        }
        width = min(max(len(name) for rows in sections.values() for name, _ in rows), MAX_NAME_COLUMN)
        for heading, rows in sections.items():
            with formatter.section(heading):
                formatter.write_dl([(name.ljust(width), help) for name, help in rows], col_max=MAX_NAME_COLUMN)


def _expand_home(value: Any) -> Any:
    """A path, or a list of paths, with the home directory for a leading ~; None stays None."""
    if isinstance(value, list | tuple):
        return type(value)(map(_expand_home, value))
    return value if value is None else type(value)(os.path.expanduser(value))  # noqa: PTH111 - text or a path


MAX_NAME_COLUMN = 30
"""Longer option names get a line of their own in the help."""


def parameters_by_heading(command: Any, context: Any) -> dict[str, list[Any]]:
    """The arguments and options of a command by their headings, in the order of the help text."""
    headings = ("Arguments", *filter(None, get_args(Group)), "Options")
    sections: dict[str, list[Any]] = {heading: [] for heading in headings}
    parameters = command.get_params(context)
    panels = {parameter.rich_help_panel for parameter in parameters} - {None, "Corpus and tokenizer"}
    default = "Output" if panels else "Options"
    for parameter in parameters:
        is_argument = parameter.param_type_name == "argument"
        sections["Arguments" if is_argument else parameter.rich_help_panel or default].append(parameter)
    return {heading: section for heading, section in sections.items() if section}


def load_selected_model(path: str | None) -> "Model":
    """Loads the model of `--model`, or the default one, whose directory is shown on standard error.

    Args:
        path: a run, a checkpoint or a model directory; None: see `find_model`.

    Raises:
        NoInputError, DataError, StorageError: there is no model, or it is damaged.
    """
    from quickfox.checkpoints.run_directory import find_model
    from quickfox.model import load_directory

    directory, note, warning = find_model(path, os.environ, Path())
    if note:
        notify(note)
    if warning:
        notify(f"warning: {warning}")
    return load_directory(directory)
