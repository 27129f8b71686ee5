"""What goes wrong with calls: LiteLLM's class names, hierarchy and attributes.

A program that has imported ``openai`` can catch them by OpenAI's classes, too, as LiteLLM's: an error is then raised
as a subclass of both. ``openai`` itself is not needed, and never imported.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any, ClassVar, Dict, Mapping, Optional, Tuple, Type

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


class ErrorResponse:
    """The answer of a failed call, as a client of the gateway would see it."""

    def __init__(self, status_code: int, headers: Mapping[str, str], content: bytes) -> None:
        self.status_code = status_code
        self.headers: Dict[str, str] = dict(headers)
        """Names are in lower case. ``retry-after`` is in whole seconds."""
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
    """The base of all errors of calls."""

    message: str
    status_code: int
    """The HTTP status that the gateway would answer with."""
    llm_provider: str
    """The provider of the deployment, such as ``openai``; empty where none is known."""
    model: str
    """The model that the call named."""
    response: ErrorResponse
    body: Any
    """The ``error`` object of the body; ``None`` without one."""
    code: Optional[str]
    type: Optional[str]
    param: Optional[str]
    request_id: Optional[str]
    request: None
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
        *,
        status_code: Optional[int] = None,
        content: bytes = b"",
        headers: Mapping[str, str] = {},
        hidden: Mapping[str, Any] = {},
    ) -> None:
        # OpenAI's class, which may come next, would want an answer of httpx.
        Exception.__init__(self, message)
        self.message = message
        self.model = model or ""
        self.llm_provider = llm_provider or ""
        self.status_code = status_code or self._status
        self.response = ErrorResponse(self.status_code, headers, content)
        self.body = _error_object(content)
        fields = self.body if isinstance(self.body, dict) else {}
        self.code, self.type, self.param = fields.get("code"), fields.get("type"), fields.get("param")
        self.request_id = headers.get("x-request-id")
        self.request = None
        self.num_retries = hidden.get("retries")
        self.max_retries = self.litellm_debug_info = None
        self._hidden_params = dict(hidden)

    @property
    def headers(self) -> Dict[str, str]:
        """Those of the response."""
        return self.response.headers

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.message!r})"

    def __reduce__(self) -> Tuple[Any, ...]:
        response = self.response
        arguments = (self.message, self.model, self.llm_provider, self.status_code, response.content, response.headers)
        return _make, (type(self).__name__, *arguments, self._hidden_params)


class APIError(OpenAIError):
    """A status that has no class of its own, or an error after a stream has begun."""

    _openai = "APIError"


class AuthenticationError(OpenAIError):
    """401: the upstream refuses the deployment's key."""

    _status, _openai = 401, "AuthenticationError"


class PermissionDeniedError(OpenAIError):
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


class RateLimitError(OpenAIError):
    """429: a full queue, a wait that is surely too long (``refuse_late``), or the upstream's own after the retries."""

    _status, _openai = 429, "RateLimitError"


class Timeout(OpenAIError):
    """408: the time of the call was up, in the queue or upstream."""

    _status, _openai = 408, "APITimeoutError"


class InternalServerError(OpenAIError):
    """500: the upstream failed."""

    _status, _openai = 500, "InternalServerError"


class BadGatewayError(OpenAIError):
    """502 of the upstream."""

    _status, _openai = 502, "APIStatusError"


class ServiceUnavailableError(OpenAIError):
    """503: the upstream's, or the router is closed, or Redis does not answer."""

    _status, _openai = 503, "APIStatusError"


class APIConnectionError(OpenAIError):
    """The upstream could not be reached, or broke off."""

    _status, _openai = 502, "APIConnectionError"


APITimeoutError = Timeout

_both: Dict[Tuple[type, type], Type[OpenAIError]] = {}


def _make(
    name: str,
    message: str,
    model: Optional[str],
    llm_provider: Optional[str],
    status_code: int,
    content: bytes,
    headers: Mapping[str, str],
    hidden: Mapping[str, Any],
) -> OpenAIError:
    """An error of the class of this name, and of OpenAI's, where the program has imported that."""
    own: Type[OpenAIError] = globals()[name]
    of_openai = getattr(sys.modules.get("openai"), own._openai, None)
    made = own
    if isinstance(of_openai, type):
        key = (own, of_openai)
        if key not in _both:
            _both[key] = type(name, key, {"__module__": __name__, "__doc__": own.__doc__})
        made = _both[key]
    return made(message, model, llm_provider, status_code=status_code, content=content, headers=headers, hidden=hidden)


def _of(failure: Mapping[str, Any], model: str) -> OpenAIError:
    """The exception for what the native part reports."""
    hidden = failure["hidden"]
    return _make(
        failure["class"],
        failure["message"],
        model,
        hidden["custom_llm_provider"],
        failure["status"],
        failure["body"],
        failure["headers"],
        hidden,
    )


def _expected(kind: str, news: News, model: str) -> News:
    """What was reported, if it is of this kind. Raises what went wrong otherwise."""
    if news[0] == kind:
        return news
    if news[0] == "failed":
        raise _of(news[1], model)
    raise APIError("the call ended without an answer", model)


def _error_object(content: bytes) -> Any:
    try:
        body = json.loads(content)
    except ValueError:
        return None
    return body.get("error", body) if isinstance(body, dict) else body
