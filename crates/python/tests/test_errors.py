"""Errors by LiteLLM's and OpenAI's classes."""

from __future__ import annotations

import pickle
import subprocess
import sys
import threading

import openai
import pytest
from conftest import MESSAGES, mock, until

from vorrang import exceptions

CLASSES = {
    400: "BadRequestError",
    401: "AuthenticationError",
    402: "PaymentRequiredError",
    403: "PermissionDeniedError",
    404: "NotFoundError",
    408: "Timeout",
    409: "APIError",
    422: "UnprocessableEntityError",
    429: "RateLimitError",
    500: "InternalServerError",
    502: "BadGatewayError",
    503: "ServiceUnavailableError",
    504: "Timeout",
}


def failed(router, model, **fields):
    with pytest.raises(exceptions.OpenAIError) as raised:
        router.completion(model, MESSAGES, **fields)
    return raised.value


@pytest.mark.parametrize("status", CLASSES)
def test_status_of_the_upstream_gives_the_class(router, upstream, status):
    model = f"status-{status}"
    one = router(upstream.deployment(model), num_retries=0, disable_cooldowns=True)
    error = failed(one, model)
    assert type(error).__name__ == CLASSES[status], error
    assert isinstance(error, getattr(exceptions, CLASSES[status]))
    assert error.status_code == error.response.status_code == status
    assert error.llm_provider == "openai" and error.model == model
    assert "not today" in str(error) and "not today" in error.body["message"]
    assert error.response.json()["error"]["message"] == error.body["message"]
    assert error._hidden_params["attempts"] == 1


def test_errors_can_be_caught_by_openais_classes(router, upstream):
    models = ["status-429", "status-401", "status-500", "long"]
    one = router(*map(upstream.deployment, models), num_retries=0, disable_cooldowns=True)
    expected = [openai.RateLimitError, openai.AuthenticationError, openai.InternalServerError, openai.BadRequestError]
    for model, kind in zip(models, expected):
        error = failed(one, model)
        assert isinstance(error, kind) and isinstance(error, openai.APIStatusError)
        assert type(error) is type(failed(one, model))


def test_openai_is_not_imported_for_its_classes():
    program = f"""
import sys
from vorrang import Router, exceptions
router = Router(model_list=[{mock()!r}])
try:
    router.completion("nope", [])
except exceptions.BadRequestError as error:
    assert type(error) is exceptions.BadRequestError
assert not any(name in sys.modules for name in ("litellm", "openai", "httpx", "pydantic"))
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_time_that_is_up_in_the_queue_is_a_timeout(router):
    one = router(mock(rpm=1), timeout=0.05)
    one.completion("gpt", MESSAGES)
    error = failed(one, "gpt")
    assert isinstance(error, exceptions.Timeout) and isinstance(error, openai.APITimeoutError)
    assert error.status_code == 408 and error._hidden_params["attempts"] == 0
    assert "waits for room for requests (rpm)" in error.message


def test_time_that_is_up_upstream_is_a_timeout(router, upstream):
    one = router(upstream.deployment("hang"), num_retries=0)
    assert isinstance(failed(one, "hang", timeout=0.1), exceptions.Timeout)


def test_full_queue_is_a_rate_limit_error_with_retry_after(router):
    one = router(mock(rpm=1), vorrang_settings={"max_queue_depth": 1})
    one.completion("gpt", MESSAGES)
    first = threading.Thread(target=pytest.raises, args=(exceptions.ServiceUnavailableError, one.completion, "gpt", []))
    first.start()
    until(lambda: one.status()["gpt"]["waiting"] == 1)
    error = failed(one, "gpt", priority=9)
    one.close()
    first.join()
    assert isinstance(error, exceptions.RateLimitError)
    assert 1 <= int(error.headers["retry-after"]) <= 121
    assert (error.code, error.type) == ("429", "throttling_error")


def test_upstream_that_cannot_be_reached_is_a_connection_error(router, upstream):
    upstream.close()
    error = failed(router(upstream.deployment("echo"), num_retries=0), "echo")
    assert isinstance(error, exceptions.APIConnectionError) and isinstance(error, openai.APIConnectionError)


def test_too_long_request_has_a_class_of_its_own(router, upstream):
    error = failed(router(upstream.deployment("long")), "long")
    assert type(error).__name__ == "ContextWindowExceededError"
    assert isinstance(error, exceptions.BadRequestError)


def test_answer_that_is_no_json_object_is_an_api_error(router, upstream):
    error = failed(router(upstream.deployment("text")), "text")
    assert isinstance(error, exceptions.APIError) and "no JSON object" in error.message
    assert (error.llm_provider, error.response.content) == ("openai", b'"no object"')


def test_mocked_errors_of_litellm_are_raised(router):
    one = router(mock("limited", mock_response="litellm.RateLimitError"), num_retries=0)
    assert isinstance(failed(one, "limited"), exceptions.RateLimitError)


def test_closed_router_refuses(router):
    one = router()
    one.close()
    assert isinstance(failed(one, "gpt"), exceptions.ServiceUnavailableError)


def test_error_survives_pickling(router):
    error = failed(router(), "nope")
    other = pickle.loads(pickle.dumps(error))
    assert (type(other), str(other), other.status_code) == (type(error), str(error), 400)
    assert other.body == error.body and other.param == "model"


PROVIDER_FIRST = [
    "APIConnectionError",
    "AuthenticationError",
    "BadGatewayError",
    "InternalServerError",
    "PermissionDeniedError",
    "RateLimitError",
    "ServiceUnavailableError",
]


@pytest.mark.parametrize("name", sorted({*CLASSES.values(), *PROVIDER_FIRST, "ContextWindowExceededError"}))
def test_arguments_of_constructors_are_in_litellms_order(name):
    response = exceptions.ErrorResponse(418, {"X-Request-Id": "r"}, b"{}")
    kind = getattr(exceptions, name)
    if name == "APIError":
        error = kind(418, "said", "provider", "model", body={"code": "c"})
    elif name in PROVIDER_FIRST:
        error = kind("said", "provider", "model", response=response)
    else:
        error = kind("said", "model", "provider", response=response)
    assert (str(error), error.llm_provider, error.model) == ("said", "provider", "model")
    if name == "APIError":
        assert (error.status_code, error.code) == (418, "c")
    else:
        assert error.response is response and error.request_id == "r" and error.status_code == kind._status
    named = kind(message="said", llm_provider="p", model="m", **({"status_code": 418} if name == "APIError" else {}))
    assert (named.message, named.llm_provider, named.model) == ("said", "p", "m")
    other = pickle.loads(pickle.dumps(named))
    # The test has imported OpenAI's SDK.
    assert isinstance(other, kind) and (other.args, other.model) == (("said",), "m")


def test_error_of_a_class_of_the_programs_own_survives_pickling():
    other = pickle.loads(pickle.dumps(Mine("said", "provider", "model")))
    assert (type(other), str(other), other.llm_provider) == (Mine, "said", "provider")


class Mine(exceptions.RateLimitError):
    pass


def test_headers_are_read_whatever_their_case():
    headers = exceptions.ErrorResponse(429, {"Retry-After": "3"}, b"").headers
    assert headers == {"retry-after": "3"} and headers.get("RETRY-AFTER") == headers["Retry-After"] == "3"
    assert "Retry-after" in headers and "x" not in headers and headers.get("X", "none") == "none"
    with pytest.raises(KeyError):
        headers["X"]


# LiteLLM itself is large: this module has its classes' hierarchy, and methods that nobody may call.
LITELLM = """
import sys, types
import openai

def untouched(self, *arguments, **named):
    raise AssertionError("a method of LiteLLM's class was called")

def made(name, *bases):
    kind = type(name, bases, dict(__init__=untouched, __str__=untouched, __repr__=untouched))
    setattr(module, name, kind)
    return kind

sys.modules["litellm"] = types.ModuleType("litellm")
module = sys.modules["litellm.exceptions"] = types.ModuleType("litellm.exceptions")
bad = made("BadRequestError", openai.BadRequestError)
made("ContextWindowExceededError", bad)
limited = made("RateLimitError", openai.RateLimitError)
"""


def test_errors_can_be_caught_by_litellms_classes():
    model = mock("limited", mock_response="litellm.RateLimitError")
    program = f"""{LITELLM}
import pickle
from vorrang import Router, exceptions

router = Router(model_list=[{model!r}], num_retries=0)
for name, kind in [("limited", limited), ("nope", bad)]:
    try:
        router.completion(name, [])
    except kind as error:
        assert isinstance(error, getattr(exceptions, kind.__name__)) and isinstance(error, openai.OpenAIError)
        other = pickle.loads(pickle.dumps(error))
        assert type(other) is type(error) and str(other) == str(error) == error.message
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_mock_response_of_a_call_is_refused_and_calls_no_upstream(router, upstream):
    one = router(upstream.deployment("gpt"))
    with pytest.raises(exceptions.BadRequestError, match="in litellm_params"):
        one.completion("gpt", MESSAGES, mock_response="hi")
    assert upstream.requests == []
