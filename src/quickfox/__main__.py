"""`python -m quickfox`: the command `llm`, where its script is not on the path."""

from quickfox.cli.app import main

main()
