"""The command `llm`: its subcommands, and the boundary where every failure becomes one line and an exit status.

Expected failures, usage errors included, are one line on standard error. Any other exception is a bug: its
traceback is shown, and the status is 1.
"""

import inspect
import re
import signal
import sys
from importlib import import_module
from typing import Annotated

import typer

from quickfox.cli import COMMANDS
from quickfox.cli.options import GroupedCommand
from quickfox.cli.signals import STOP_SIGNALS, Stopped, StopSignals, exit_immediately
from quickfox.cli.streams import (
    ClosedPipeError,
    flush_standard_output,
    format_error,
    format_failure,
    install_output_stream,
    notify,
    program_name,
    replace_closed_streams,
    write_stderr,
)
from quickfox.errors import ExitStatus, QuickfoxError
from quickfox.files.atomic import clean_up_now
from quickfox.version import __version__

MAX_HELP_WIDTH = 100  # columns


def build_app(arguments: list[str]) -> typer.Typer:
    """The program, with only the subcommand that the arguments name, if any: importing all takes a third of the
    start-up time."""
    app = typer.Typer(
        help="Train a language model on your own text, on your own computer, and sample from it.",
        epilog="\b\nFirst steps:\n  llm train corpus.txt\n  llm generate --seed 'The quick brown fox'",
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": MAX_HELP_WIDTH},
        rich_markup_mode=None,  # plain help: importing Rich takes a third of the time until help is shown
        pretty_exceptions_enable=False,
    )
    app.callback(invoke_without_command=True)(root)
    for name in [name for name in COMMANDS if name in arguments[:1]] or COMMANDS:
        command = import_module(f"quickfox.cli.commands.{name.replace('-', '_')}")
        app.command(name, cls=GroupedCommand, short_help=_summary(command.run), epilog=command.EXAMPLES)(command.run)
    return app


def _summary(run: object) -> str:
    """The first sentence of a command's docstring."""
    return re.split(r"(?<=\.)\s", inspect.getdoc(run) or "", maxsplit=1)[0]


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
    if signal.getsignal(signal.SIGINT) == signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # before and after the command: no traceback
    replace_closed_streams()
    install_output_stream()
    status = run_command(program_name(), sys.argv[1:])
    if status - 128 in STOP_SIGNALS:
        clean_up_now()  # what a signal interrupted
        exit_immediately(status)  # threads and libraries need not end
    sys.exit(status)


def run_command(program: str, arguments: list[str]) -> int:
    """Runs one command and returns its exit status; every expected failure is caught here.

    Args:
        program: the name the program was called by.
        arguments: the command line after it.
    """
    try:
        with StopSignals():
            try:
                status = typer.main.get_command(build_app(arguments)).main(arguments, program, standalone_mode=False)
            finally:
                flush_standard_output()
    except ClosedPipeError:
        return ExitStatus.CLOSED_PIPE
    except Stopped as stopped:
        notify(stopped.message)
        return stopped.exit_status
    except QuickfoxError as error:
        write_stderr(format_failure(format_error(error)))
        return error.exit_status
    except typer.TyperException as error:
        write_stderr(format_failure(f"{error.format_message().rstrip('.')} (see {_help_command(error, program)})"))
        return ExitStatus.USAGE
    return status or ExitStatus.SUCCESS


def _help_command(error: typer.TyperException, program: str) -> str:
    context = getattr(error, "ctx", None)  # usage errors have one
    return f"{context.command_path if context else program} --help"
