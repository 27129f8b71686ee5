"""The calls of a :class:`vorrang.Router`."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Dict, Iterable, Literal, Mapping, Optional, Tuple, Type, Union, overload

from . import exceptions
from ._json import given, to_json
from ._vorrang import Core
from ._waits import OnWait, checked, wait_async, wait_sync
from .responses import EmbeddingResponse, ModelResponse, ModelResponseStream, Object, T, TextCompletionResponse, _read
from .streams import AsyncStream, Stream

if TYPE_CHECKING:
    from ._vorrang import News

_CHAT = "/chat/completions"
_TEXT = "/completions"
_EMBEDDINGS = "/embeddings"

Messages = Iterable[Union[Mapping[str, Any], Object]]


class Calls:
    """Chat completions, text completions and embeddings.

    In each signature ``fields`` are those of the request's body.
    """

    _core: Core
    _on_wait: Optional[OnWait]

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

        ``priority``: the lower, the sooner; 0 is the default, and negative ones are better. ``timeout``: seconds, in
        the queue and upstream. ``on_wait`` comes before the router's. Other ``fields`` (``temperature``, ``tools``,
        ...; LiteLLM's ``num_retries``, ``fallbacks``, ...) are those of the request's body; those that are ``None``
        are left out, and those of ``extra_body`` are added.

        With ``stream=True`` it returns once the answer has begun.

        Raises the classes of :mod:`vorrang.exceptions`: ``Timeout`` where the time was up, ``RateLimitError`` where
        the queue was full, ``BadRequestError``, ``AuthenticationError``, ... where the upstream refused it after the
        retries and fallbacks.
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
        _, events, hidden = exceptions._expected("stream", await wait_async(start, on_wait), model)
        return AsyncStream(events, hidden, of, model)

    def _stream(
        self, endpoint: str, model: str, fields: Dict[str, Any], on_wait: Optional[OnWait], of: Type[T]
    ) -> Stream[T]:
        start, on_wait = self._start(endpoint, model, fields, True, on_wait)
        _, events, hidden = exceptions._expected("stream", wait_sync(start, on_wait), model)
        return Stream(events, hidden, of, model)

    def _start(
        self, endpoint: str, model: str, fields: Dict[str, Any], stream: bool, on_wait: Optional[OnWait]
    ) -> "Tuple[partial[Any], Optional[OnWait]]":
        on_wait = self._on_wait if on_wait is None else checked(on_wait)
        extra = fields.pop("extra_body", None) or {}
        request = {"model": model, **given(fields), **extra}
        if request.get("mock_response") is not None:
            # LiteLLM would answer with it: to call the upstream instead would cost a program's tests money.
            message = "'mock_response' of a call is not obeyed: give it to a deployment, in litellm_params"
            raise exceptions._wrong("mock_response", message)
        try:
            body = to_json(request)
        except (ValueError, RecursionError) as error:
            raise _no_json(request, error) from None
        return partial(self._core.call, endpoint, body, stream, on_wait is not None), on_wait


def _no_json(request: Mapping[str, Any], error: Exception) -> exceptions.OpenAIError:
    """The error for NaN, infinity, half of a surrogate pair, or a value that holds itself."""
    for name, value in request.items():
        try:
            to_json({name: value})
        except (ValueError, RecursionError) as of_field:
            return exceptions._wrong(name, f"The request is no JSON: {ascii(name)}: {of_field}")
    return exceptions._wrong(None, f"The request is no JSON: {error}")


def _answer(news: News, model: str, of: Type[T]) -> T:
    _, content, hidden = exceptions._expected("answer", news, model)
    return _read(of, content, hidden, model)
