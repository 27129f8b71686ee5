"""What goes wrong with calls: LiteLLM's class names, hierarchy and attributes.

A program that has imported ``litellm`` or ``openai`` can catch them by the classes of those, too: an error is then
raised as a subclass of both. Neither is needed, and neither is ever imported.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any, ClassVar, Dict, Mapping, Optional, Tuple, Type, Union

if TYPE_CHECKING:
    from ._vorrang import News

__all__ = [
    "APIConnectionError",
    "APIError",
    "APITimeoutError",
    "AuthenticationError",
    "BadGatewayError",
    "BadRequestError",
    "ContentPolicyViolationError",
    "ContextWindowExceededError",
    "ErrorResponse",
    "InternalServerError",
    "NotFoundError",
    "OpenAIError",
    "PaymentRequiredError",
    "PermissionDeniedError",
    "RateLimitError",
    "ServiceUnavailableError",
    "Timeout",
    "UnprocessableEntityError",
]


class Headers(Dict[str, str]):
    """Headers by their names in lower case. Reading ignores the case of a name."""

    def __init__(self, headers: Mapping[str, str] = {}) -> None:
        super().__init__({name.lower(): value for name, value in headers.items()})

    def __missing__(self, name: str) -> str:
        lower = name.lower()
        if lower == name:
            raise KeyError(name)
        return self[lower]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and super().__contains__(name.lower())

    def get(self, name: str, default: Any = None) -> Any:
        """The value, whatever the case of the name."""
        return super().get(name.lower(), default)


class ErrorResponse:
    """The answer of a failed call, as a client of the gateway would see it."""

    def __init__(self, status_code: int, headers: Mapping[str, str], content: bytes) -> None:
        self.status_code = status_code
        self.headers: Headers = Headers(headers)
        """``retry-after`` is in whole seconds."""
        self.content = content

    @property
    def text(self) -> str:
        """The body."""
        return self.content.decode("utf-8", "replace")

    def json(self) -> Any:
        """The body. Raises ``ValueError`` where it is not JSON."""
        return json.loads(self.content)

    def __repr__(self) -> str:
        return f"<Response [{self.status_code}]>"


class OpenAIError(Exception):
    """The base of all errors of calls.

    The order of a constructor's arguments is that of LiteLLM's class. ``response``: one of one's own, such as httpx's.
    """

    message: str
    status_code: int
    """The HTTP status that the gateway would answer with."""
    llm_provider: str
    """The provider of the deployment, such as ``openai``; empty where none is known."""
    model: str
    """The model that the call named."""
    response: Any
    """An :class:`ErrorResponse`, or what the constructor was given."""
    body: Any
    """The ``error`` object of the body; ``None`` without one."""
    code: Optional[str]
    type: Optional[str]
    param: Optional[str]
    request_id: Optional[str]
    request: Any
    """``None``, or what the constructor of :class:`APIError` or :class:`APIConnectionError` was given."""
    num_retries: Optional[int]
    max_retries: Optional[int]
    litellm_debug_info: Optional[str]
    _hidden_params: Dict[str, Any]
    """What is known of the call: see :attr:`vorrang.ModelResponse._hidden_params`."""

    _status: ClassVar[int] = 500
    _openai: ClassVar[str] = "OpenAIError"

    def __init__(
        self,
        message: str,
        model: Optional[str] = None,
        llm_provider: Optional[str] = None,
        response: Any = None,
        litellm_debug_info: Optional[str] = None,
        max_retries: Optional[int] = None,
        num_retries: Optional[int] = None,
        body: Any = None,
        *,
        status_code: Optional[int] = None,
        content: bytes = b"",
        headers: Optional[Mapping[str, str]] = None,
        hidden: Mapping[str, Any] = {},
    ) -> None:
        # The class of OpenAI or LiteLLM, which may come next, would want an answer of httpx.
        Exception.__init__(self, message)
        self.message = message
        self.model = model or ""
        self.llm_provider = llm_provider or ""
        self.status_code = status_code or self._status
        self.response = ErrorResponse(self.status_code, headers or {}, content) if response is None else response
        self.body = _error_object(content) if body is None else body
        fields = self.body if isinstance(self.body, dict) else {}
        self.code, self.type, self.param = fields.get("code"), fields.get("type"), fields.get("param")
        self.request_id = self.response.headers.get("x-request-id")
        self.request = None
        self.num_retries = hidden.get("retries") if num_retries is None else num_retries
        self.max_retries, self.litellm_debug_info = max_retries, litellm_debug_info
        self._hidden_params = dict(hidden)

    @property
    def headers(self) -> Mapping[str, str]:
        """Those of the response."""
        headers: Mapping[str, str] = self.response.headers
        return headers

    def __str__(self) -> str:
        # LiteLLM's classes have others.
        return Exception.__str__(self)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.message!r})"

    def __reduce__(self) -> Tuple[Any, ...]:
        # Classes that were made for LiteLLM or OpenAI are found by their names.
        kind = type(self).__name__ if type(self).__module__ == __name__ else type(self)
        return _bare, (kind, self.message), self.__dict__


class _ProviderFirst(OpenAIError):
    """LiteLLM's other order of arguments."""

    def __init__(
        self,
        message: str,
        llm_provider: Optional[str] = None,
        model: Optional[str] = None,
        response: Any = None,
        litellm_debug_info: Optional[str] = None,
        max_retries: Optional[int] = None,
        num_retries: Optional[int] = None,
        **more: Any,
    ) -> None:
        super().__init__(message, model, llm_provider, response, litellm_debug_info, max_retries, num_retries, **more)


class APIError(OpenAIError):
    """A status that has no class of its own, or an error after a stream has begun."""

    _openai = "APIError"

    def __init__(
        self,
        status_code: Optional[int],
        message: str,
        llm_provider: Optional[str] = None,
        model: Optional[str] = None,
        request: Any = None,
        litellm_debug_info: Optional[str] = None,
        max_retries: Optional[int] = None,
        num_retries: Optional[int] = None,
        body: Any = None,
        **more: Any,
    ) -> None:
        super().__init__(
            message,
            model,
            llm_provider,
            None,
            litellm_debug_info,
            max_retries,
            num_retries,
            body,
            status_code=status_code,
            **more,
        )
        self.request = request


class AuthenticationError(_ProviderFirst):
    """401: the upstream refuses the deployment's key."""

    _status, _openai = 401, "AuthenticationError"


class PermissionDeniedError(_ProviderFirst):
    """403."""

    _status, _openai = 403, "PermissionDeniedError"


class NotFoundError(OpenAIError):
    """404: the upstream does not know the model."""

    _status, _openai = 404, "NotFoundError"


class BadRequestError(OpenAIError):
    """400: the request is wrong, names no known model, or can never be served."""

    _status, _openai = 400, "BadRequestError"


class ContextWindowExceededError(BadRequestError):
    """The request is too long for the model."""


class ContentPolicyViolationError(BadRequestError):
    """The provider's policy refuses the request."""


class PaymentRequiredError(BadRequestError):
    """402: the provider's account has no credit."""

    _status = 402


class UnprocessableEntityError(OpenAIError):
    """422."""

    _status, _openai = 422, "UnprocessableEntityError"


class RateLimitError(_ProviderFirst):
    """429: a full queue, a wait that is surely too long (``refuse_late``), or the upstream's own after the retries."""

    _status, _openai = 429, "RateLimitError"


class Timeout(OpenAIError):
    """408: the time of the call was up, in the queue or upstream."""

    _status, _openai = 408, "APITimeoutError"

    def __init__(
        self,
        message: str,
        model: Optional[str] = None,
        llm_provider: Optional[str] = None,
        litellm_debug_info: Optional[str] = None,
        max_retries: Optional[int] = None,
        num_retries: Optional[int] = None,
        headers: Optional[Mapping[str, str]] = None,
        exception_status_code: Optional[int] = None,
        response: Any = None,
        *,
        status_code: Optional[int] = None,
        **more: Any,
    ) -> None:
        super().__init__(
            message,
            model,
            llm_provider,
            response,
            litellm_debug_info,
            max_retries,
            num_retries,
            headers=headers,
            status_code=status_code or exception_status_code,
            **more,
        )


class InternalServerError(_ProviderFirst):
    """500: the upstream failed."""

    _status, _openai = 500, "InternalServerError"


class BadGatewayError(_ProviderFirst):
    """502 of the upstream."""

    _status, _openai = 502, "APIStatusError"


class ServiceUnavailableError(_ProviderFirst):
    """503: the upstream's, or the router is closed, or Redis does not answer."""

    _status, _openai = 503, "APIStatusError"


class APIConnectionError(_ProviderFirst):
    """The upstream could not be reached, or broke off."""

    _status, _openai = 502, "APIConnectionError"

    def __init__(
        self,
        message: str,
        llm_provider: Optional[str] = None,
        model: Optional[str] = None,
        request: Any = None,
        litellm_debug_info: Optional[str] = None,
        max_retries: Optional[int] = None,
        num_retries: Optional[int] = None,
        **more: Any,
    ) -> None:
        # LiteLLM's class has no response here.
        response = more.pop("response", None)
        super().__init__(message, llm_provider, model, response, litellm_debug_info, max_retries, num_retries, **more)
        self.request = request


APITimeoutError = Timeout

_both: Dict[Tuple[type, type], Type[OpenAIError]] = {}


def _class_of(name: str) -> Type[OpenAIError]:
    """The class of this name; a subclass of LiteLLM's or OpenAI's as well, where the program has imported one.

    LiteLLM's classes are subclasses of OpenAI's.
    """
    own: Type[OpenAIError] = globals()[name]
    other = getattr(sys.modules.get("litellm.exceptions"), name, None)
    if not isinstance(other, type):
        other = getattr(sys.modules.get("openai"), own._openai, None)
    if not isinstance(other, type):
        return own
    key = (own, other)
    if key not in _both:
        _both[key] = type(name, key, {"__module__": __name__, "__doc__": own.__doc__})
    return _both[key]


def _make(name: str, **arguments: Any) -> OpenAIError:
    """An error of the class of this name, of these arguments of its constructor."""
    if name == "APIError":
        arguments.setdefault("status_code", None)
    return _class_of(name)(**arguments)


def _bare(kind: Union[str, Type[OpenAIError]], message: str) -> OpenAIError:
    """An error without attributes, which unpickling adds."""
    own = _class_of(kind) if isinstance(kind, str) else kind
    return own.__new__(own, message)


def _wrong(field: Optional[str], message: str) -> OpenAIError:
    """The error for a field of a request that cannot be sent to the native part."""
    error = {"message": message, "type": "invalid_request_error", "param": field, "code": "400"}
    content = json.dumps({"error": error}).encode()
    return _make("BadRequestError", message=message, content=content)


def _of(failure: Mapping[str, Any], model: str) -> OpenAIError:
    """The exception for what the native part reports."""
    hidden = failure["hidden"]
    return _make(
        failure["class"],
        message=failure["message"],
        model=model,
        llm_provider=hidden["custom_llm_provider"],
        status_code=failure["status"],
        content=failure["body"],
        headers=failure["headers"],
        hidden=hidden,
    )


def _expected(kind: str, news: News, model: str) -> News:
    """What was reported, if it is of this kind. Raises what went wrong otherwise."""
    if news[0] == kind:
        return news
    if news[0] == "failed":
        raise _of(news[1], model)
    raise _make("APIError", message="the call ended without an answer", model=model)


def _error_object(content: bytes) -> Any:
    try:
        body = json.loads(content)
    except ValueError:
        return None
    return body.get("error", body) if isinstance(body, dict) else body
