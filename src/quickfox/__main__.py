"""`python -m quickfox` runs the command `llm`."""

from quickfox.cli.app import main

main()
