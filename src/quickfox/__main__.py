"""The program: `llm`, or `python -m quickfox`."""

import signal


def main() -> None:
    """The entry point of the commands `llm` and `quickfox`."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C during the imports below shows no traceback
    from quickfox.cli.app import main as run

    run()


if __name__ == "__main__":
    main()
