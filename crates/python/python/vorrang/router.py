"""LiteLLM's ``Router``, on Vorrang's scheduler."""

from __future__ import annotations

import atexit
import json
import logging
import os
import sys
import time
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Dict, List, Mapping, NoReturn, Optional, Sequence, Type, Union
from weakref import WeakSet

from . import _logging, exceptions
from ._json import given, to_json
from ._vorrang import Core, Waiter
from ._waits import OnWait, checked, wait_async, wait_sync
from .calls import Calls
from .permits import PermitContext, Tokens, _both, _judge
from .settings import RouterSettings
from .status import GroupStatus

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ._vorrang import Task, To

_logger = logging.getLogger("vorrang")

# How long a new router waits for Redis, in seconds. A queue that is new there takes a lease, which is 3 s.
_OPENING = 5.0

# More seconds than any time of a call: the native part takes the least of both.
_LONGEST = 1e9

# How long the end of the program waits for sessions to be closed, in seconds. Those that are not end with their lease.
_AT_EXIT = 1.0


class Router(Calls):
    """Calls groups of deployments of LLMs, each call when it is its turn.

    Calls of a group (``model_name``) wait in one queue, ordered by (priority, arrival), until one of its deployments
    has room under its limits (``rpm``, ``tpm``, ``max_parallel_requests``, ...). With ``redis_url`` or ``redis_host``
    queue and limits are those of all processes that share the Redis, gateways included; without, those of this router.

    ``model_list``: dicts with ``model_name``, ``litellm_params`` and ``model_info``, as in LiteLLM.

    ``on_wait`` is called with a :class:`vorrang.Wait` whenever a call of this router has to wait: on the event loop of
    the call, or in the thread that made it. It must not block. What it raises is logged.

    ``vorrang_settings`` and ``litellm_settings`` are the sections of a file (``docs/python.md``). All other arguments
    are those of LiteLLM's ``Router`` (:class:`vorrang.RouterSettings`).

    Raises ``ValueError`` for wrong settings, all errors at once, and ``TypeError`` for an argument that LiteLLM's
    ``Router`` has not. With a Redis it returns when the queues are open there: within milliseconds, after 3 s where
    Redis does not know them yet, and with a warning after 5 s where Redis does not answer; calls then wait for it. A
    router can be used by all threads and event loops of its process. A forked process makes its own.
    Raises ``RuntimeError`` where gevent or eventlet has patched ``threading``.
    """

    def __init__(
        self,
        model_list: Optional[Sequence[Mapping[str, Any]]] = None,
        *,
        on_wait: Optional[OnWait] = None,
        vorrang_settings: Optional[Mapping[str, Any]] = None,
        litellm_settings: Optional[Mapping[str, Any]] = None,
        **settings: Unpack[RouterSettings],
    ) -> None:
        unknown = settings.keys() - RouterSettings.__annotations__.keys()
        if unknown:
            raise TypeError(f"Router() got an unexpected keyword argument {min(unknown)!r}")
        for name, section in [("vorrang_settings", vorrang_settings), ("litellm_settings", litellm_settings)]:
            if section is not None and not isinstance(section, Mapping):
                raise TypeError(f"{name} must be a dict, not {type(section).__name__}")
        document = {
            "model_list": [] if model_list is None else model_list,
            "router_settings": given(settings),
            "litellm_settings": given(litellm_settings or {}),
            "vorrang_settings": given(vorrang_settings or {}),
        }
        self._open(partial(Core.of_settings, to_json(document)), on_wait)

    @classmethod
    def from_config(cls, path: Union[str, "os.PathLike[str]"], *, on_wait: Optional[OnWait] = None) -> Router:
        """A router of a ``config.yaml``, as the gateway and LiteLLM's proxy read it.

        Raises ``ValueError`` with all errors of the file, and their lines.
        """
        router = cls.__new__(cls)
        router._open(partial(Core.of_file, path), on_wait)
        return router

    def _open(self, core: "partial[Core]", on_wait: Optional[OnWait]) -> None:
        _refuse_green_threads()
        self._on_wait = checked(on_wait)
        _logging.start()
        try:
            self._core = core()
        finally:
            # Warnings come before what the program does next.
            _logging.flush()
        _open_routers.add(self)
        wait_sync(partial(self._core.until_ready, _OPENING))
        if not self._core.ready():
            _logger.warning("Redis has not answered yet: calls wait until it does")

    def permit(
        self,
        model: str,
        *,
        priority: Optional[int] = None,
        tokens: Tokens = 0,
        timeout: Optional[float] = None,
        on_wait: Optional[OnWait] = None,
    ) -> PermitContext:
        """A slot of a model's quota for a call that the program makes by itself, with any client.

        >>> async with router.permit("gpt", priority=5, tokens=800) as permit:
        ...     answer = await clients[permit.deployment].chat.completions.create(model=permit.model, messages=messages)
        ...     permit.used((answer.usage.prompt_tokens, answer.usage.completion_tokens))

        ``with`` waits in a thread, and ``@router.permit("gpt")`` before each call of a function. ``tokens``: what the
        call will use at most, a total or (input, output); they count against limits of tokens until ``used`` corrects
        them. ``timeout``: the longest wait, in seconds. Raises as :meth:`acompletion` does while it waits, and
        ``BadRequestError`` at once for a wrong ``priority``, ``tokens`` or ``timeout``.
        """
        on_wait = self._on_wait if on_wait is None else checked(on_wait)
        _judge(model, priority, timeout)
        try:
            both = _both(tokens)
        except ValueError as error:
            raise exceptions._wrong("tokens", str(error)) from None
        core, timeout = self._core, None if timeout is None else float(min(timeout, _LONGEST))

        def start(to: To) -> Task:
            return core.permit(model, priority, both, timeout, on_wait is not None, to)

        return PermitContext(start, model, on_wait)

    def status(self) -> Dict[str, GroupStatus]:
        """What is known of each group: its queue, and what its deployments use of their limits. It asks nobody."""
        groups: Dict[str, GroupStatus] = json.loads(self._core.status())
        return groups

    def get_model_names(self) -> List[str]:
        """The names that calls can use: groups and aliases."""
        return self._core.models()

    @property
    def ready(self) -> bool:
        """Whether calls of every group can be granted: Redis answers. A router in memory is ready at once."""
        return self._core.ready()

    async def aclose(self, grace: float = 10.0) -> None:
        """Refuses calls that wait (``ServiceUnavailableError``), and lets those on their way end within ``grace``
        seconds. Calls and streams that still go on then are cut off. A permit that is held for more than a second
        longer no longer counts against the limits of the fleet: end it before.
        """
        await wait_async(partial(self._core.close, grace))
        # If it was cancelled, the end of the program closes the sessions.
        _open_routers.discard(self)

    def close(self, grace: float = 10.0) -> None:
        """The same as :meth:`aclose`, in a thread that waits."""
        wait_sync(partial(self._core.close, grace))
        _open_routers.discard(self)

    async def __aenter__(self) -> Router:
        return self

    async def __aexit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        await self.aclose()

    def __enter__(self) -> Router:
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.close()

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Router cannot be sent to another process: make one there")


def _refuse_green_threads() -> None:
    """The native part blocks threads, and with them every greenlet of a hub: a router would wait for itself."""
    gevent, eventlet = sys.modules.get("gevent.monkey"), sys.modules.get("eventlet.patcher")
    if gevent is not None and (gevent.is_module_patched("threading") or gevent.is_module_patched("thread")):
        name = "gevent"
    elif eventlet is not None and eventlet.is_monkey_patched("thread"):
        name = "eventlet"
    else:
        return
    raise RuntimeError(f"vorrang does not support threads that {name} has patched: use asyncio or real threads")


_open_routers: "WeakSet[Router]" = WeakSet()
os.register_at_fork(after_in_child=lambda: _open_routers.clear())


@atexit.register
def _close_all() -> None:
    """Closes the sessions in Redis, so that no other process waits for their leases."""
    closing = []
    for router in list(_open_routers):
        waiter = Waiter()
        closing.append((router._core.close(0.0, waiter), waiter))
    until = time.monotonic() + _AT_EXIT
    for _, waiter in closing:
        try:
            waiter.wait(max(0.0, until - time.monotonic()))
        except TimeoutError:
            break
    _logging.flush()
