"""Train your own language model on your own text, on your own computer, and sample from it.

    import quickfox

    model = quickfox.train("corpus.txt", budget=60)  # seconds; needs TensorFlow
    model = quickfox.resume("runs/corpus")  # goes on where it was interrupted
    model = quickfox.load("runs/corpus")  # needs NumPy only
    print(model.generate("The quick brown fox", length=200))

Importing this package costs nothing: what the names stand for is imported when one is first used.
"""

from typing import TYPE_CHECKING, Any

from quickfox.version import __version__

if TYPE_CHECKING:
    from quickfox.api import load, resume, train

__all__ = ["__version__", "load", "resume", "train"]


def __getattr__(name: str) -> Any:
    if name not in ("load", "resume", "train"):
        raise AttributeError(f"module 'quickfox' has no attribute {name!r}")
    from quickfox import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
