"""LiteLLM's ``Router``, on Vorrang's scheduler."""

from __future__ import annotations

import atexit
import json
import logging
import os
import time
from functools import partial
from types import TracebackType
from typing import (
    TYPE_CHECKING,
    Any,
    Dict,
    Iterable,
    List,
    Literal,
    Mapping,
    NoReturn,
    Optional,
    Sequence,
    Tuple,
    Type,
    TypeVar,
    Union,
    overload,
)
from weakref import WeakSet

from . import _logging, exceptions
from ._vorrang import Core, Waiter
from ._waits import OnWait, wait_async, wait_sync
from .responses import EmbeddingResponse, ModelResponse, ModelResponseStream, Object, TextCompletionResponse
from .settings import RouterSettings
from .status import GroupStatus
from .streams import AsyncStream, Stream

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ._vorrang import News

_logger = logging.getLogger("vorrang")

T = TypeVar("T", bound=Object)

_CHAT = "/chat/completions"
_TEXT = "/completions"
_EMBEDDINGS = "/embeddings"

# How long a new router waits for Redis, in seconds. A queue that is new there takes a lease, which is 3 s.
_OPENING = 5.0

# How long the end of the program waits for sessions to be closed, in seconds. Those that are not end with their lease.
_AT_EXIT = 1.0

Messages = Iterable[Union[Mapping[str, Any], Object]]


class Router:
    """Calls groups of deployments of LLMs, each call when it is its turn.

    Calls of a group (``model_name``) wait in one queue, ordered by (priority, arrival), until one of its deployments has room under
    its limits (``rpm``, ``tpm``, ``max_parallel_requests``, ...). With ``redis_url`` or ``redis_host`` queue and limits are those of
    all processes that share the Redis, gateways included; without, those of this router.

    ``model_list``: dicts with ``model_name``, ``litellm_params`` and ``model_info``, as in LiteLLM.

    ``on_wait`` is called with a :class:`vorrang.Wait` whenever a call of this router has to wait: on the event loop of the call, or in
    the thread that made it. It must not block. What it raises is logged.

    ``vorrang_settings`` and ``litellm_settings`` are the sections of a file (``docs/python.md``). All other arguments are those of
    LiteLLM's ``Router`` (:class:`vorrang.RouterSettings`).

    Raises ``ValueError`` for wrong settings, all errors at once, and ``TypeError`` for an argument that LiteLLM's ``Router`` has not.
    With a Redis it returns when the queues are open there: within milliseconds, after 3 s where Redis does not know them yet, and with
    a warning after 5 s where Redis does not answer; calls then wait for it.
    A router can be used by all threads and event loops of its process. A forked process makes its own.
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
        document = {
            "model_list": [] if model_list is None else model_list,
            "router_settings": _given(settings),
            "litellm_settings": _given(litellm_settings or {}),
            "vorrang_settings": _given(vorrang_settings or {}),
        }
        self._open(partial(Core.of_settings, _json(document)), on_wait)

    @classmethod
    def from_config(cls, path: Union[str, "os.PathLike[str]"], *, on_wait: Optional[OnWait] = None) -> Router:
        """A router of a ``config.yaml``, as the gateway and LiteLLM's proxy read it.

        Raises ``ValueError`` with all errors of the file, and their lines.
        """
        router = cls.__new__(cls)
        router._open(partial(Core.of_file, path), on_wait)
        return router

    def _open(self, core: "partial[Core]", on_wait: Optional[OnWait]) -> None:
        _logging.start()
        try:
            self._core = core()
        finally:
            # Warnings come before what the program does next.
            _logging.flush()
        self._on_wait = on_wait
        _open_routers.add(self)
        wait_sync(partial(self._core.until_ready, _OPENING))
        if not self._core.ready():
            _logger.warning("Redis has not answered yet: calls wait until it does")

    @overload
    async def acompletion(
        self,
        model: str,
        messages: Messages,
        stream: Literal[False] = False,
        *,
        priority: Optional[int] = None,
        timeout: Optional[float] = None,
        on_wait: Optional[OnWait] = None,
        **fields: Any,
    ) -> ModelResponse: ...
    @overload
    async def acompletion(
        self,
        model: str,
        messages: Messages,
        stream: Literal[True],
        *,
        priority: Optional[int] = None,
        timeout: Optional[float] = None,
        on_wait: Optional[OnWait] = None,
        **fields: Any,
    ) -> AsyncStream[ModelResponseStream]: ...
    @overload
    async def acompletion(
        self,
        model: str,
        messages: Messages,
        stream: bool = False,
        *,
        priority: Optional[int] = None,
        timeout: Optional[float] = None,
        on_wait: Optional[OnWait] = None,
        **fields: Any,
    ) -> Union[ModelResponse, AsyncStream[ModelResponseStream]]: ...
    async def acompletion(
        self,
        model: str,
        messages: Messages,
        stream: bool = False,
        *,
        priority: Optional[int] = None,
        timeout: Optional[float] = None,
        on_wait: Optional[OnWait] = None,
        **fields: Any,
    ) -> Union[ModelResponse, AsyncStream[ModelResponseStream]]:
        """A chat completion, made when it is its turn. Cancelling the task leaves the queue, or cuts the call off.

        ``priority``: the lower, the sooner; 0 is the default, and negative ones are better. ``timeout``: seconds, in the queue and
        upstream. ``on_wait`` comes before the router's. Other ``fields`` (``temperature``, ``tools``, ...; LiteLLM's ``num_retries``,
        ``fallbacks``, ...) are those of the request's body; those that are ``None`` are left out, and those of ``extra_body`` are
        added.

        With ``stream=True`` it returns once the answer has begun.

        Raises the classes of :mod:`vorrang.exceptions`: ``Timeout`` where the time was up, ``RateLimitError`` where the queue was full,
        ``BadRequestError``, ``AuthenticationError``, ... where the upstream refused it after the retries and fallbacks.
        """
        fields.update(messages=messages, priority=priority, timeout=timeout)
        if stream:
            return await self._astream(_CHAT, model, fields, on_wait, ModelResponseStream)
        return await self._acall(_CHAT, model, fields, on_wait, ModelResponse)

    @overload
    def completion(
        self,
        model: str,
        messages: Messages,
        stream: Literal[False] = False,
        *,
        priority: Optional[int] = None,
        timeout: Optional[float] = None,
        on_wait: Optional[OnWait] = None,
        **fields: Any,
    ) -> ModelResponse: ...
    @overload
    def completion(
        self,
        model: str,
        messages: Messages,
        stream: Literal[True],
        *,
        priority: Optional[int] = None,
        timeout: Optional[float] = None,
        on_wait: Optional[OnWait] = None,
        **fields: Any,
    ) -> Stream[ModelResponseStream]: ...
    @overload
    def completion(
        self,
        model: str,
        messages: Messages,
        stream: bool = False,
        *,
        priority: Optional[int] = None,
        timeout: Optional[float] = None,
        on_wait: Optional[OnWait] = None,
        **fields: Any,
    ) -> Union[ModelResponse, Stream[ModelResponseStream]]: ...
    def completion(
        self,
        model: str,
        messages: Messages,
        stream: bool = False,
        *,
        priority: Optional[int] = None,
        timeout: Optional[float] = None,
        on_wait: Optional[OnWait] = None,
        **fields: Any,
    ) -> Union[ModelResponse, Stream[ModelResponseStream]]:
        """The same as :meth:`acompletion`. The thread waits; others run meanwhile. Ctrl-C ends it, and the call."""
        fields.update(messages=messages, priority=priority, timeout=timeout)
        if stream:
            return self._stream(_CHAT, model, fields, on_wait, ModelResponseStream)
        return self._call(_CHAT, model, fields, on_wait, ModelResponse)

    @overload
    async def atext_completion(
        self,
        model: str,
        prompt: Any,
        stream: Literal[False] = False,
        *,
        priority: Optional[int] = None,
        timeout: Optional[float] = None,
        on_wait: Optional[OnWait] = None,
        **fields: Any,
    ) -> TextCompletionResponse: ...
    @overload
    async def atext_completion(
        self,
        model: str,
        prompt: Any,
        stream: Literal[True],
        *,
        priority: Optional[int] = None,
        timeout: Optional[float] = None,
        on_wait: Optional[OnWait] = None,
        **fields: Any,
    ) -> AsyncStream[TextCompletionResponse]: ...
    @overload
    async def atext_completion(
        self,
        model: str,
        prompt: Any,
        stream: bool = False,
        *,
        priority: Optional[int] = None,
        timeout: Optional[float] = None,
        on_wait: Optional[OnWait] = None,
        **fields: Any,
    ) -> Union[TextCompletionResponse, AsyncStream[TextCompletionResponse]]: ...
    async def atext_completion(
        self,
        model: str,
        prompt: Any,
        stream: bool = False,
        *,
        priority: Optional[int] = None,
        timeout: Optional[float] = None,
        on_wait: Optional[OnWait] = None,
        **fields: Any,
    ) -> Union[TextCompletionResponse, AsyncStream[TextCompletionResponse]]:
        """A text completion. ``prompt``: a text, texts, or tokens. See :meth:`acompletion`."""
        fields.update(prompt=prompt, priority=priority, timeout=timeout)
        if stream:
            return await self._astream(_TEXT, model, fields, on_wait, TextCompletionResponse)
        return await self._acall(_TEXT, model, fields, on_wait, TextCompletionResponse)

    @overload
    def text_completion(
        self,
        model: str,
        prompt: Any,
        stream: Literal[False] = False,
        *,
        priority: Optional[int] = None,
        timeout: Optional[float] = None,
        on_wait: Optional[OnWait] = None,
        **fields: Any,
    ) -> TextCompletionResponse: ...
    @overload
    def text_completion(
        self,
        model: str,
        prompt: Any,
        stream: Literal[True],
        *,
        priority: Optional[int] = None,
        timeout: Optional[float] = None,
        on_wait: Optional[OnWait] = None,
        **fields: Any,
    ) -> Stream[TextCompletionResponse]: ...
    @overload
    def text_completion(
        self,
        model: str,
        prompt: Any,
        stream: bool = False,
        *,
        priority: Optional[int] = None,
        timeout: Optional[float] = None,
        on_wait: Optional[OnWait] = None,
        **fields: Any,
    ) -> Union[TextCompletionResponse, Stream[TextCompletionResponse]]: ...
    def text_completion(
        self,
        model: str,
        prompt: Any,
        stream: bool = False,
        *,
        priority: Optional[int] = None,
        timeout: Optional[float] = None,
        on_wait: Optional[OnWait] = None,
        **fields: Any,
    ) -> Union[TextCompletionResponse, Stream[TextCompletionResponse]]:
        """The same as :meth:`atext_completion`, in a thread that waits."""
        fields.update(prompt=prompt, priority=priority, timeout=timeout)
        if stream:
            return self._stream(_TEXT, model, fields, on_wait, TextCompletionResponse)
        return self._call(_TEXT, model, fields, on_wait, TextCompletionResponse)

    async def aembedding(
        self,
        model: str,
        input: Any,
        *,
        priority: Optional[int] = None,
        timeout: Optional[float] = None,
        on_wait: Optional[OnWait] = None,
        **fields: Any,
    ) -> EmbeddingResponse:
        """Embeddings. ``input``: a text, texts, or tokens. See :meth:`acompletion`."""
        fields.update(input=input, priority=priority, timeout=timeout)
        return await self._acall(_EMBEDDINGS, model, fields, on_wait, EmbeddingResponse)

    def embedding(
        self,
        model: str,
        input: Any,
        *,
        priority: Optional[int] = None,
        timeout: Optional[float] = None,
        on_wait: Optional[OnWait] = None,
        **fields: Any,
    ) -> EmbeddingResponse:
        """The same as :meth:`aembedding`, in a thread that waits."""
        fields.update(input=input, priority=priority, timeout=timeout)
        return self._call(_EMBEDDINGS, model, fields, on_wait, EmbeddingResponse)

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
        """Refuses calls that wait (``ServiceUnavailableError``), and lets those on their way end within ``grace`` seconds."""
        _open_routers.discard(self)
        await wait_async(partial(self._core.close, grace))

    def close(self, grace: float = 10.0) -> None:
        """The same as :meth:`aclose`, in a thread that waits."""
        _open_routers.discard(self)
        wait_sync(partial(self._core.close, grace))

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

    async def _acall(
        self, endpoint: str, model: str, fields: Dict[str, Any], on_wait: Optional[OnWait], of: Type[T]
    ) -> T:
        start, on_wait = self._start(endpoint, model, fields, False, on_wait)
        return _answer(await wait_async(start, on_wait), model, of)

    def _call(self, endpoint: str, model: str, fields: Dict[str, Any], on_wait: Optional[OnWait], of: Type[T]) -> T:
        start, on_wait = self._start(endpoint, model, fields, False, on_wait)
        return _answer(wait_sync(start, on_wait), model, of)

    async def _astream(
        self, endpoint: str, model: str, fields: Dict[str, Any], on_wait: Optional[OnWait], of: Type[T]
    ) -> AsyncStream[T]:
        start, on_wait = self._start(endpoint, model, fields, True, on_wait)
        _, events, hidden = _expected("stream", await wait_async(start, on_wait), model)
        return AsyncStream(events, hidden, of, model)

    def _stream(
        self, endpoint: str, model: str, fields: Dict[str, Any], on_wait: Optional[OnWait], of: Type[T]
    ) -> Stream[T]:
        start, on_wait = self._start(endpoint, model, fields, True, on_wait)
        _, events, hidden = _expected("stream", wait_sync(start, on_wait), model)
        return Stream(events, hidden, of, model)

    def _start(
        self, endpoint: str, model: str, fields: Dict[str, Any], stream: bool, on_wait: Optional[OnWait]
    ) -> "Tuple[partial[Any], Optional[OnWait]]":
        on_wait = on_wait or self._on_wait
        extra = fields.pop("extra_body", None) or {}
        body = _json({"model": model, **_given(fields), **extra})
        return partial(self._core.call, endpoint, body, stream, on_wait is not None), on_wait


def _answer(news: News, model: str, of: Type[T]) -> T:
    _, content, hidden = _expected("answer", news, model)
    try:
        fields = json.loads(content)
        answer = of(fields)
    except (ValueError, TypeError):
        message = "the upstream's answer is no JSON object"
        raise exceptions.APIError(message, model, hidden["custom_llm_provider"], content=content, hidden=hidden) from None
    answer._hidden_params = hidden
    return answer


def _expected(kind: str, news: News, model: str) -> News:
    if news[0] == kind:
        return news
    if news[0] == "failed":
        raise exceptions._of(news[1], model)
    raise exceptions.APIError("the call ended without an answer", model)


def _given(settings: Mapping[str, Any]) -> Dict[str, Any]:
    return {name: value for name, value in settings.items() if value is not None}


def _json(value: Any) -> bytes:
    text = json.dumps(value, default=_serializable, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.encode()


def _serializable(value: Any) -> Any:
    """What `json` does not know: pydantic's objects, such as those of OpenAI's SDK, and iterables."""
    if isinstance(value, Mapping):
        return dict(value)
    if hasattr(value, "model_dump") and not isinstance(value, type):
        return value.model_dump(mode="json", exclude_unset=True)
    if isinstance(value, Iterable) and not isinstance(value, (bytes, bytearray, memoryview)):
        return list(value)
    raise TypeError(f"{type(value).__name__} is no value of JSON: {value!r}")


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
