"""Streamed answers: iterators of their events."""

from __future__ import annotations

from collections import deque
from types import TracebackType
from typing import TYPE_CHECKING, Any, Deque, Dict, Generic, Optional, Type

from . import exceptions
from ._vorrang import Events
from ._waits import wait_async, wait_sync
from .responses import T, _read

if TYPE_CHECKING:
    from ._vorrang import News


class _Stream(Generic[T]):
    """What both kinds have in common: events that have come, and how the stream ends."""

    def __init__(self, events: Events, hidden: Dict[str, Any], of: Type[T], model: str) -> None:
        self._hidden_params = hidden
        self._events = events
        self._of = of
        self._model = model
        self._come: Deque[bytes] = deque()
        self._ended = False
        self._failure: Optional[Dict[str, Any]] = None

    def _take(self, news: News) -> None:
        if news[0] != "events":
            self._ended = True
            raise exceptions._make("APIError", message="the stream ended without a reason", model=self._model)
        _, events, self._ended, self._failure = news
        self._come.extend(events)

    def _next(self) -> Optional[T]:
        """An event that has come. Raises what ended the stream, after all events before that."""
        if self._come:
            try:
                return _read(self._of, self._come.popleft(), self._hidden_params, self._model)
            except exceptions.APIError:
                self._close()
                raise
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise exceptions._of(failure, self._model)
        return None

    def _close(self) -> None:
        self._ended = True
        self._failure = None
        self._come.clear()
        self._events.close()


class AsyncStream(_Stream[T]):
    """The events of an answer: ``async for event in stream``. Leaving ``async with stream``, or :meth:`aclose`, ends
    the call.

    A task that is cancelled while it waits for an event ends the call, too. :meth:`aclose` while another task waits
    for an event ends it with that event.
    """

    def __aiter__(self) -> AsyncStream[T]:
        return self

    async def __anext__(self) -> T:
        while True:
            event = self._next()
            if event is not None:
                return event
            if self._ended:
                raise StopAsyncIteration
            try:
                self._take(await wait_async(self._events.next))
            except BaseException:
                self._close()
                raise

    async def aclose(self) -> None:
        """Ends the call."""
        self._close()

    async def __aenter__(self) -> AsyncStream[T]:
        return self

    async def __aexit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self._close()


class Stream(_Stream[T]):
    """The events of an answer: ``for event in stream``. Leaving ``with stream``, or :meth:`close`, ends the call."""

    def __iter__(self) -> Stream[T]:
        return self

    def __next__(self) -> T:
        while True:
            event = self._next()
            if event is not None:
                return event
            if self._ended:
                raise StopIteration
            try:
                self._take(wait_sync(self._events.next))
            except BaseException:
                self._close()
                raise

    def close(self) -> None:
        """Ends the call."""
        self._close()

    def __enter__(self) -> Stream[T]:
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self._close()
