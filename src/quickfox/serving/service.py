"""What the endpoints share: the served models by name, the limits, and the generations of a request."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from quickfox.config.sampling import SamplingConfig
from quickfox.errors import QuickfoxError
from quickfox.serving.batch import LogitBias
from quickfox.serving.engine import Engine
from quickfox.serving.generation import Event, Failure, Generation
from quickfox.serving.http import RequestError
from quickfox.serving.models import ServedModel
from quickfox.serving.parameters import EncodedPrompt


@dataclass(frozen=True)
class Service:
    """What is served.

    Attributes:
        models: by name, the default first.
        max_length: maximum number of tokens of a prompt, and of all texts of a request together.
    """

    models: Mapping[str, ServedModel]
    max_length: int

    def find(self, name: str | None) -> ServedModel:
        """The model of that name, or the default; a better checkpoint of it is loaded in the background.

        Raises:
            RequestError: there is no such model.
        """
        model = self.models.get(name) if name is not None else next(iter(self.models.values()))
        if model is None:
            names = ", ".join(self.models)
            raise RequestError(f"no model is named {(name or '')[:64]!r}: there is {names}", 404, param="model")
        model.check_for_better()
        return model


class EventQueue:
    """The events of several generations, for a coroutine; each with the number of its generation."""

    def __init__(self) -> None:
        self._events: list[tuple[int, Event]] = []
        self._has_events = asyncio.Event()

    def put(self, number: int, events: Iterable[Event]) -> None:
        """Appends events; called in the thread of the event loop."""
        self._events += [(number, event) for event in events]
        self._has_events.set()

    async def get_all(self) -> list[tuple[int, Event]]:
        """Waits for events, and returns all that have come.

        Raises:
            RequestError: a generation failed.
        """
        await self._has_events.wait()
        self._has_events.clear()
        events, self._events = self._events, []
        for _, event in events:
            if isinstance(event, Failure):
                is_expected = isinstance(event.error, QuickfoxError)
                raise RequestError(str(event.error) if is_expected else "internal error: see the server's log", 500)
        return events


class GenerationJob:
    """The generations of a request; leaving its `with` block cancels those that have not ended.

    Args:
        engine: of the model.
        prompts: one generation continues each of them.
        config: of all of them.
        logit_bias: of all of them.
        has_prompt_logprobs, is_streaming: see `Generation`.
    """

    def __init__(
        self,
        engine: Engine,
        prompts: Sequence[EncodedPrompt],
        config: SamplingConfig,
        logit_bias: LogitBias,
        *,
        has_prompt_logprobs: bool,
        is_streaming: bool,
    ) -> None:
        self.prompts = prompts
        self.config = config
        self.queue = EventQueue()
        self._engine = engine
        self._generations = [
            Generation(
                prompt.token_ids,
                config,
                partial(self.queue.put, number),
                logit_bias=logit_bias,
                has_prompt_logprobs=has_prompt_logprobs,
                ends_at_border=prompt.ends_at_border,
                is_streaming=is_streaming,
            )
            for number, prompt in enumerate(prompts)
        ]

    @property
    def num_completions(self) -> int:
        """Number of texts that are generated."""
        return len(self.prompts) * (self.config.best_of or self.config.num_samples)

    def __enter__(self) -> "GenerationJob":
        for generation in self._generations:
            self._engine.submit(generation)
        return self

    def __exit__(self, *_: object) -> None:
        for generation in self._generations:
            generation.is_cancelled = True
