"""How Python waits for what a native task reports: on an event loop, or in a thread."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Callable, Dict, NamedTuple, Optional
from weakref import WeakKeyDictionary

from ._vorrang import Inbox, Task, Waiter

if TYPE_CHECKING:
    from ._vorrang import News, To

_logger = logging.getLogger("vorrang")


@dataclass(frozen=True)
class Wait:
    """What is known of a call that has entered a queue and waits."""

    model: str
    """The group's name, with aliases resolved."""
    priority: int
    """The lower, the sooner."""
    ahead: int
    """How many waiting calls, of the whole fleet, were surely before it. With fair shares others may come between."""
    least_wait: float
    """How long it waits at least, in seconds, if none of those before it leaves."""


OnWait = Callable[[Wait], object]
Start = Callable[["To"], Task]


class _Call(NamedTuple):
    future: "asyncio.Future[News]"
    on_wait: Optional[OnWait]


class _Loop:
    """The calls of one event loop. The loop is woken by a socket: a call that waits costs no thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._inbox = Inbox()
        self._calls: Dict[int, _Call] = {}
        self._numbers = itertools.count()
        loop.add_reader(self._inbox.fileno(), self._deliver)

    def _deliver(self) -> None:
        for number, news in self._inbox.take():
            call = self._calls.get(number)
            # It may have been cancelled meanwhile.
            if call is None:
                continue
            if news[0] == "waiting":
                _waits(call.on_wait, news)
            elif not call.future.done():
                call.future.set_result(news)

    async def wait_for(self, start: Start, on_wait: Optional[OnWait]) -> News:
        number = next(self._numbers)
        future: "asyncio.Future[News]" = asyncio.get_running_loop().create_future()
        self._calls[number] = _Call(future, on_wait)
        task = None
        try:
            task = start((self._inbox, number))
            news = await future
            task = None
            return news
        finally:
            del self._calls[number]
            if task is not None:
                task.cancel()
            # An answer that has come meanwhile may hold a slot: a traceback must not keep it.
            del future


# A loop that is closed and gone takes its calls with it.
_loops: "WeakKeyDictionary[asyncio.AbstractEventLoop, _Loop]" = WeakKeyDictionary()
# The child of a fork would share its parent's sockets.
os.register_at_fork(after_in_child=lambda: _loops.clear())


async def wait_async(start: Start, on_wait: Optional[OnWait] = None) -> News:
    """What the task reports. Cancelling the caller cancels the task."""
    running = asyncio.get_running_loop()
    loop = _loops.get(running)
    if loop is None:
        loop = _loops[running] = _Loop(running)
    return await loop.wait_for(start, on_wait)


def wait_sync(start: Start, on_wait: Optional[OnWait] = None) -> News:
    """What the task reports.

    Other threads run meanwhile. An exception of a signal's handler, such as KeyboardInterrupt, cancels it.
    """
    waiter = Waiter()
    task: Optional[Task] = start(waiter)
    try:
        news = waiter.wait()
        while news[0] == "waiting":
            _waits(on_wait, news)
            news = waiter.wait()
        task = None
        return news
    finally:
        if task is not None:
            task.cancel()


def _waits(on_wait: Optional[OnWait], news: News) -> None:
    if on_wait is None:
        return
    try:
        on_wait(Wait(*news[1:]))
    except Exception:
        _logger.exception("on_wait failed")
