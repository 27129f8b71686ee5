"""Answers: dicts whose keys are attributes, too, by the names of OpenAI's and LiteLLM's classes."""

from __future__ import annotations

import json
from typing import Any, ClassVar, Dict, FrozenSet, List, Mapping, Optional, Type, TypeVar

from . import exceptions


class Object(Dict[str, Any]):
    """A JSON object of an answer: ``answer.usage`` is ``answer["usage"]``.

    It is a dict: ``in``, ``get``, ``==`` and ``json.dumps`` work, and it can be part of the next request. An attribute
    that its class names and the answer lacks is ``None``.
    """

    __slots__ = ("_hidden_params",)
    _hidden_params: Dict[str, Any]

    # The classes of what it holds, by name: objects, or lists of them. All others are of this class.
    _parts: ClassVar[Mapping[str, Type[Object]]] = {}
    _names: ClassVar[FrozenSet[str]] = frozenset()

    def __init_subclass__(cls) -> None:
        own = (name for name in cls.__dict__.get("__annotations__", {}) if not name.startswith("_"))
        cls._names = cls._names.union(own)

    def __init__(self, fields: Mapping[str, Any] = {}, **more: Any) -> None:
        super().__init__()
        self._hidden_params = {}
        parts = self._parts
        for name, value in {**fields, **more}.items():
            # Most values are neither.
            self[name] = _made(value, parts.get(name, Object)) if isinstance(value, (dict, list)) else value

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            if name in self._names:
                return None
            raise AttributeError(f"{type(self).__name__} has no {name!r}") from None

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            super().__setattr__(name, value)
        else:
            self[name] = value

    def __delattr__(self, name: str) -> None:
        try:
            del self[name]
        except KeyError:
            raise AttributeError(f"{type(self).__name__} has no {name!r}") from None

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={value!r}" for name, value in self.items())
        return f"{type(self).__name__}({fields})"

    def __dir__(self) -> List[str]:
        return sorted({*super().__dir__(), *self, *self._names})

    def model_dump(self, *, exclude_none: bool = False, **_: Any) -> Dict[str, Any]:
        """Plain dicts and lists, as the upstream sent them.

        Other arguments of pydantic's method are accepted and have no effect.
        """
        plain: Dict[str, Any] = _plain(self, exclude_none)
        return plain

    def model_dump_json(self, *, indent: Optional[int] = None, exclude_none: bool = False, **_: Any) -> str:
        """The same as JSON."""
        separators = (",", ":") if indent is None else None
        return json.dumps(_plain(self, exclude_none), indent=indent, separators=separators, ensure_ascii=False)

    def to_dict(self, **_: Any) -> Dict[str, Any]:
        """The same as :meth:`model_dump`."""
        return self.model_dump()

    def to_json(self, *, indent: Optional[int] = 2, **_: Any) -> str:
        """The same as :meth:`model_dump_json`."""
        return self.model_dump_json(indent=indent)


T = TypeVar("T", bound=Object)


def _read(of: Type[T], content: bytes, hidden: Dict[str, Any], model: str) -> T:
    """What the upstream sent. Raises ``APIError`` where it is no JSON object."""
    try:
        answer = of(json.loads(content))
    except (ValueError, TypeError):
        message = "the upstream's answer is no JSON object"
        provider = hidden["custom_llm_provider"]
        raise exceptions._make(
            "APIError", message=message, model=model, llm_provider=provider, content=content, hidden=hidden
        ) from None
    answer._hidden_params = hidden
    return answer


def _made(value: Any, of: Type[Object]) -> Any:
    if isinstance(value, dict):
        return value if isinstance(value, Object) else of(value)
    # An embedding is a long list of numbers.
    if isinstance(value, list) and value and isinstance(value[0], (dict, list)):
        return [_made(item, of) for item in value]
    return value


def _plain(value: Any, exclude_none: bool) -> Any:
    if isinstance(value, dict):
        return {name: _plain(item, exclude_none) for name, item in value.items() if not (exclude_none and item is None)}
    if isinstance(value, list):
        return [_plain(item, exclude_none) for item in value]
    return value


class Function(Object):
    """What a tool call asks for."""

    __slots__ = ()
    name: Optional[str]
    arguments: str
    """JSON. In a stream a part of it."""


class ToolCall(Object):
    """One tool call of a message."""

    __slots__ = ()
    _parts = {"function": Function}
    id: Optional[str]
    index: Optional[int]
    type: Optional[str]
    function: Function


class Message(Object):
    """The message of a choice."""

    __slots__ = ()
    _parts = {"tool_calls": ToolCall, "function_call": Function}
    role: str
    content: Optional[str]
    refusal: Optional[str]
    reasoning_content: Optional[str]
    tool_calls: Optional[List[ToolCall]]
    function_call: Optional[Function]
    audio: Optional[Object]
    annotations: Optional[List[Object]]


class Delta(Message):
    """What an event adds to a message."""

    __slots__ = ()


class Usage(Object):
    """What a call used, in tokens."""

    __slots__ = ()
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: Optional[Object]
    completion_tokens_details: Optional[Object]


class Choices(Object):
    """One choice of a chat completion."""

    __slots__ = ()
    _parts = {"message": Message}
    index: int
    message: Message
    finish_reason: Optional[str]
    logprobs: Optional[Object]


class StreamingChoices(Object):
    """One choice of an event."""

    __slots__ = ()
    _parts = {"delta": Delta}
    index: int
    delta: Delta
    finish_reason: Optional[str]
    logprobs: Optional[Object]


class TextChoices(Object):
    """One choice of a text completion, or of an event of one."""

    __slots__ = ()
    index: int
    text: str
    finish_reason: Optional[str]
    logprobs: Optional[Object]


class Embedding(Object):
    """One embedding."""

    __slots__ = ()
    index: int
    object: str
    embedding: Any
    """Numbers, or base64 where the request asks for it."""


class _Answer(Object):
    __slots__ = ()
    id: str
    object: str
    created: int
    """Seconds since 1970."""
    model: str
    usage: Optional[Usage]
    system_fingerprint: Optional[str]
    service_tier: Optional[str]


class ModelResponse(_Answer):
    """A chat completion. ``_hidden_params`` says how it was made."""

    __slots__ = ()
    _parts = {"choices": Choices, "usage": Usage}
    choices: List[Choices]


class ModelResponseStream(_Answer):
    """One event of a streamed chat completion."""

    __slots__ = ()
    _parts = {"choices": StreamingChoices, "usage": Usage}
    choices: List[StreamingChoices]


class TextCompletionResponse(_Answer):
    """A text completion, or one event of a streamed one."""

    __slots__ = ()
    _parts = {"choices": TextChoices, "usage": Usage}
    choices: List[TextChoices]


class EmbeddingResponse(Object):
    """Embeddings, in the order of the input."""

    __slots__ = ()
    _parts = {"data": Embedding, "usage": Usage}
    object: str
    model: str
    data: List[Embedding]
    usage: Optional[Usage]
