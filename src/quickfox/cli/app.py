"""The command `llm`: its subcommands, and the boundary where every failure becomes one line and an exit status.

Expected failures, usage errors included, are one line on standard error. What is not expected is a bug: its
traceback is shown and the status is 1.
"""

import sys
from importlib import import_module
from typing import Annotated

import typer

from quickfox.cli.signals import Stopped, raise_on_stop_signals
from quickfox.cli.streams import (
    ClosedPipeError,
    failure_line,
    flush_standard_output,
    install_product_stream,
    program_name,
    replace_closed_streams,
    write_stderr,
)
from quickfox.errors import ExitStatus, QuickfoxError
from quickfox.version import __version__

COMMANDS = ("build-vocab", "train", "generate", "evaluate", "score", "info", "export")
"""In the order of the help text; each is the module of that name in `cli/commands`."""


def build_app(arguments: list[str]) -> typer.Typer:
    """The program, with only the subcommand that the arguments begin with, where they do: the others would take a
    third of the time it takes to show its help."""
    app = typer.Typer(
        help="Train a language model on your own text, on your own computer, and sample from it.",
        epilog="\b\nStart here:\n  llm train corpus.txt\n  llm generate --seed 'The quick brown fox'",
        context_settings={"help_option_names": ["-h", "--help"]},
        rich_markup_mode=None,  # plain help: Rich would cost a third of the time it takes to see it
        pretty_exceptions_enable=False,
    )
    app.callback(invoke_without_command=True)(root)
    for name in [name for name in COMMANDS if name in arguments[:1]] or COMMANDS:
        command = import_module(f"quickfox.cli.commands.{name.replace('-', '_')}")
        app.command(name, epilog=command.EXAMPLES)(command.run)
    return app


def root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    if version:
        typer.echo(f"quickfox {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def main() -> None:
    """The entry point of the commands `llm` and `quickfox`."""
    replace_closed_streams()
    install_product_stream()
    sys.exit(_run(program_name(), sys.argv[1:]))


def _run(program: str, arguments: list[str]) -> int:
    """Runs one command to its end and returns the exit status; every failure that is no bug ends here."""
    try:
        try:
            raise_on_stop_signals()
            status = typer.main.get_command(build_app(arguments)).main(arguments, program, standalone_mode=False)
        finally:
            flush_standard_output()
    except ClosedPipeError:
        return ExitStatus.CLOSED_PIPE
    except Stopped as stopped:
        return stopped.exit_status
    except QuickfoxError as error:
        write_stderr(failure_line(str(error)))
        return error.exit_status
    except typer.TyperException as error:
        write_stderr(failure_line(f"{error.format_message().rstrip('.')} (see {_help_command(error, program)})"))
        return ExitStatus.USAGE
    return status or ExitStatus.SUCCESS


def _help_command(error: typer.TyperException, program: str) -> str:
    context = getattr(error, "ctx", None)  # usage errors have one
    return f"{context.command_path if context else program} --help"
