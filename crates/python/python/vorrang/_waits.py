"""How Python waits for what a native task reports: on an event loop, or in a thread."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import itertools
import logging
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Callable, Dict, NamedTuple, Optional
from weakref import WeakKeyDictionary, ref

from . import _logging
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


def checked(on_wait: Optional[OnWait]) -> Optional[OnWait]:
    """Raises ``TypeError`` for what cannot be called, and for coroutine functions: nobody would await them."""
    if on_wait is None:
        return None
    if not callable(on_wait):
        raise TypeError(f"on_wait must be a function of a Wait, not {type(on_wait).__name__}")
    if inspect.iscoroutinefunction(on_wait) or inspect.iscoroutinefunction(type(on_wait).__call__):
        raise TypeError("on_wait must be a plain function: a coroutine function would not be awaited")
    return on_wait


class _Call(NamedTuple):
    future: "asyncio.Future[News]"
    on_wait: Optional[OnWait]


class _Loop:
    """The calls of one event loop. The loop is woken by a socket: a call that waits costs no thread.

    Only the event loop, as the owner of the reader, and calls that wait hold it.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._inbox = Inbox()
        self._calls: Dict[int, _Call] = {}
        self._numbers = itertools.count()
        loop.add_reader(self._inbox.fileno(), self._deliver)

    def _deliver(self) -> None:
        ends: Optional[BaseException] = None
        for number, news in self._inbox.take():
            call = self._calls.get(number)
            # It may have been cancelled meanwhile.
            if call is None:
                continue
            if news[0] == "waiting":
                # The news of other calls must not be lost.
                try:
                    _waits(call.on_wait, news)
                except (KeyboardInterrupt, SystemExit) as error:
                    ends = error
                except BaseException as error:
                    _logging.log(_logger, logging.ERROR, "on_wait failed", error)
            elif not call.future.done():
                call.future.set_result(news)
        if ends is not None:
            raise ends

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


# A loop that is closed and gone takes its calls with it: they lead to the loop, so nothing here may hold them.
_loops: "WeakKeyDictionary[asyncio.AbstractEventLoop, ref[_Loop]]" = WeakKeyDictionary()
# The child of a fork would share its parent's sockets.
os.register_at_fork(after_in_child=lambda: _loops.clear())


async def wait_async(start: Start, on_wait: Optional[OnWait] = None) -> News:
    """What the task reports. Cancelling the caller cancels the task."""
    running = asyncio.get_running_loop()
    entry = _loops.get(running)
    loop = None if entry is None else entry()
    if loop is None:
        loop = _Loop(running)
        _loops[running] = ref(loop)
    if on_wait is not None:
        # The loop would run it in the context of whichever call came first.
        on_wait = _in_context(contextvars.copy_context(), on_wait)
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


def _in_context(context: contextvars.Context, on_wait: OnWait) -> OnWait:
    return lambda wait: context.run(on_wait, wait)


def _waits(on_wait: Optional[OnWait], news: News) -> None:
    if on_wait is None:
        return
    try:
        on_wait(Wait(*news[1:]))
    except Exception as error:
        _logging.log(_logger, logging.ERROR, "on_wait failed", error)
