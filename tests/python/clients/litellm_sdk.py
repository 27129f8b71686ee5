"""LiteLLM's SDK as a client, by both of its prefixes for a server such as this: litellm_sdk.py GATEWAY_URL."""

import asyncio
import sys

import litellm
from common import KEY, MESSAGES, PRIORITY, SYSTEM, TOOL, VECTOR, raises, raises_async, said, text_of

# Otherwise it prints where to get help for each error.
litellm.suppress_debug_info = True
PREFIXES = ("openai", "litellm_proxy")
CLASSES = {
    400: litellm.BadRequestError,
    404: litellm.NotFoundError,
    429: litellm.RateLimitError,
    500: litellm.InternalServerError,
    503: litellm.ServiceUnavailableError,
}


def options(url, prefix, model="gpt", **more):
    return {"model": f"{prefix}/{model}", "api_base": f"{url}/v1", "api_key": KEY, "num_retries": 0, **more}


def asked(url, prefix, model="gpt", messages=SYSTEM, **more):
    return options(url, prefix, model, messages=messages, max_retries=0, **more)


def calls(url, prefix):
    answer = litellm.completion(**asked(url, prefix, extra_body=PRIORITY))
    assert answer.choices[0].message.content == "hello there", answer
    assert answer.usage.total_tokens == 14, answer
    headers = answer._hidden_params["additional_headers"]
    assert headers["llm_provider-x-vorrang-priority"] == "7", headers

    stream = litellm.completion(**asked(url, prefix, "model", stream=True, extra_body=PRIORITY))
    assert text_of(stream) == "right of way"

    for model in ("gpt", "claude"):
        answer = litellm.completion(**asked(url, prefix, model, tools=[TOOL]))
        names = [call.function.name for call in answer.choices[0].message.tool_calls]
        assert names == ["weather"] * 2, answer

    vectors = litellm.embedding(**options(url, prefix, "model", input=["a", "b"], extra_body=PRIORITY))
    assert [vector["embedding"] for vector in vectors.data] == [VECTOR] * 2, vectors


def errors(url, prefix):
    for status, kind in CLASSES.items():
        raises(kind, lambda: litellm.completion(**asked(url, prefix, messages=said(f"fail {status}"))), status)
    raises(litellm.AuthenticationError, lambda: litellm.completion(**{**asked(url, prefix), "api_key": "sk-no"}), 401)
    raises(litellm.BadRequestError, lambda: litellm.completion(**asked(url, prefix, "nope")), 400)
    late = asked(url, prefix, "slow", extra_body={"timeout": 0.2})
    raises(litellm.Timeout, lambda: litellm.completion(**late), 408)


async def asynchronous(url, prefix):
    answer = await litellm.acompletion(**asked(url, prefix, extra_body=PRIORITY))
    assert answer.choices[0].message.content == "hello there", answer
    stream = await litellm.acompletion(**asked(url, prefix, "model", stream=True, extra_body=PRIORITY))
    assert text_of([chunk async for chunk in stream]) == "right of way"
    vectors = await litellm.aembedding(**options(url, prefix, "model", input="a"))
    assert vectors.data[0]["embedding"] == VECTOR, vectors
    call = lambda: litellm.acompletion(**asked(url, prefix, messages=said("fail 429")))
    await raises_async(litellm.RateLimitError, call, 429)


async def all_asynchronous(url):
    for prefix in PREFIXES:
        await asynchronous(url, prefix)


def main():
    (url,) = sys.argv[1:]
    for prefix in PREFIXES:
        calls(url, prefix)
        errors(url, prefix)
    asyncio.run(all_asynchronous(url))
    print("LiteLLM's SDK is served")


main()
