"""The program: `llm`, or `python -m quickfox`."""

# `signal` itself imports enum, during which Ctrl-C would show a traceback.
import _signal  # type: ignore[import-not-found]  # it has no types


def main() -> None:
    """The entry point of the commands `llm` and `quickfox`."""
    _signal.signal(_signal.SIGINT, _signal.SIG_DFL)  # Ctrl-C during the imports below shows no traceback
    from quickfox.cli.app import main as run

    run()


if __name__ == "__main__":
    main()
