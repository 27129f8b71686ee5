"""Slots of a model's quota, for calls that a program makes by itself."""

from __future__ import annotations

import functools
import inspect
import math
import operator
import threading
from types import TracebackType
from typing import TYPE_CHECKING, Any, Callable, Dict, Optional, Tuple, Type, TypeVar, Union, cast

from . import exceptions
from ._waits import OnWait, Start, wait_async, wait_sync

if TYPE_CHECKING:
    from ._vorrang import NativePermit, News

F = TypeVar("F", bound=Callable[..., Any])

Tokens = Union[int, Tuple[int, int]]
"""A total, or tokens of the input and of the output."""


class Permit:
    """The right to make one call now, on one deployment.

    It counts against the limits since it was given: the call is to be made at once.
    """

    def __init__(self, native: NativePermit, hidden: Dict[str, Any]) -> None:
        self._native = native
        self._hidden_params = hidden
        self._reported = False

    @property
    def deployment(self) -> str:
        """The deployment's id (``model_info.id``, else a hash)."""
        return self._native.deployment

    @property
    def model(self) -> str:
        """What the upstream calls the model."""
        return self._native.model

    @property
    def api_base(self) -> Optional[str]:
        """The deployment's base URL without anything secret; ``None`` for a mock."""
        return self._native.api_base

    def used(self, tokens: Tokens) -> None:
        """The tokens that the call used. Limits of tokens are corrected when the permit ends."""
        self._native.used(*_both(tokens))

    def failed(self, status: int) -> None:
        """The call failed with this HTTP status, 0 where there was no answer: it counts towards ``allowed_fails``."""
        self._reported = True
        self._native.failed(status)

    def cooldown(self, seconds: float) -> None:
        """The upstream asked to wait, as with a 429: no call goes to the deployment for so long, in the whole fleet."""
        self._reported = True
        self._native.cooldown(seconds)

    def not_sent(self) -> None:
        """Certainly nothing was sent: the permit ends, and its charge is refunded."""
        self._reported = True
        self._native.not_sent()

    def _end(self, well: bool) -> None:
        if well and not self._reported:
            self._native.succeeded()
        self._native.end()


class PermitContext:
    """Waits for a :class:`Permit`: ``async with``, ``with``, or a decorator of a function, which waits before each
    call of it.

    The permit ends with the block. A block that ends without an exception is a success, unless the permit was told
    otherwise.
    """

    def __init__(self, start: Start, model: str, on_wait: Optional[OnWait]) -> None:
        self._start = start
        self._model = model
        self._on_wait = on_wait
        self._permit: Optional[Permit] = None
        # Held from before the wait until the end.
        self._use = threading.Lock()

    async def __aenter__(self) -> Permit:
        self._begin()
        try:
            return self._take(await wait_async(self._start, self._on_wait))
        except BaseException:
            self._use.release()
            raise

    async def __aexit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self._end(kind is None)

    def __enter__(self) -> Permit:
        self._begin()
        try:
            return self._take(wait_sync(self._start, self._on_wait))
        except BaseException:
            self._use.release()
            raise

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self._end(kind is None)

    def __call__(self, function: F) -> F:
        if not callable(function):
            raise TypeError(f"a permit decorates functions, not {type(function).__name__}")
        if _is(inspect.isgeneratorfunction, function) or _is(inspect.isasyncgenfunction, function):
            raise TypeError("a permit cannot decorate a generator function: use the permit inside of it")
        if _is(inspect.iscoroutinefunction, function):

            @functools.wraps(function)
            async def waits_async(*arguments: Any, **named: Any) -> Any:
                async with self._another():
                    return await function(*arguments, **named)

            return cast(F, waits_async)

        @functools.wraps(function)
        def waits(*arguments: Any, **named: Any) -> Any:
            with self._another():
                result = function(*arguments, **named)
                if inspect.isawaitable(result):
                    if inspect.iscoroutine(result):
                        result.close()
                    raise TypeError(
                        "a function with a permit returned an awaitable, which would outlive the permit: "
                        "decorate an `async def`, or use the permit inside of the function"
                    )
                return result

        return cast(F, waits)

    def _another(self) -> PermitContext:
        return PermitContext(self._start, self._model, self._on_wait)

    def _begin(self) -> None:
        if not self._use.acquire(blocking=False):
            raise RuntimeError("this permit is in use: ask the router for another one")

    def _take(self, news: News) -> Permit:
        _, native, hidden = exceptions._expected("permit", news, self._model)
        self._permit = Permit(native, hidden)
        return self._permit

    def _end(self, well: bool) -> None:
        permit, self._permit = self._permit, None
        if permit is not None:
            try:
                permit._end(well)
            finally:
                self._use.release()


def _is(kind: Callable[[Any], bool], function: Callable[..., Any]) -> bool:
    """Also for objects whose class has such a ``__call__``."""
    return kind(function) or kind(type(function).__call__)


def _both(tokens: Tokens) -> Tuple[int, int]:
    """Raises ``ValueError`` for what is no number of tokens."""
    parts = tokens if isinstance(tokens, (tuple, list)) else (tokens, 0)
    try:
        if len(parts) != 2 or any(isinstance(part, bool) for part in parts):
            raise TypeError
        input, output = map(operator.index, parts)
    except TypeError:
        input = output = -1
    if not (0 <= input < 2**63 and 0 <= output < 2**63):
        raise ValueError("Invalid value for 'tokens': expected a whole number from 0, or a pair of them")
    return input, output


def _judge(model: Any, priority: Any, timeout: Any) -> None:
    """Raises ``BadRequestError`` where a call with these values would."""
    if not isinstance(model, str) or not _is_unicode(model):
        raise exceptions._wrong("model", "Invalid type for 'model': expected a string")
    if not (priority is None or _is_number(priority, int) and -(2**31) <= priority < 2**31):
        message = f"Invalid value for 'priority': expected an integer between {-(2**31)} and {2**31 - 1}"
        raise exceptions._wrong("priority", message)
    # NaN is not above 0.
    if not (timeout is None or _is_number(timeout, (int, float)) and 0 < timeout < math.inf):
        raise exceptions._wrong("timeout", "Invalid value for 'timeout': expected a number of seconds above 0")


def _is_number(value: Any, kinds: Union[Type[Any], Tuple[Type[Any], ...]]) -> bool:
    return isinstance(value, kinds) and not isinstance(value, bool)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
