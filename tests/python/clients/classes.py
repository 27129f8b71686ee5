"""Each kind of failure is raised as the class that programs look for, by OpenAI's and Anthropic's SDKs: classes.py GATEWAY_URL."""

import asyncio
import sys

import anthropic
import openai
from common import KEY, MESSAGES, NARROW, VECTOR, raises, raises_async, said, text_of

# What the upstream answers, and the classes of both SDKs, which have the same names.
CLASSES = {
    400: "BadRequestError",
    403: "PermissionDeniedError",
    404: "NotFoundError",
    422: "UnprocessableEntityError",
    429: "RateLimitError",
    500: "InternalServerError",
    503: "InternalServerError",
}


def openai_client(url, key=KEY, **more):
    return openai.OpenAI(api_key=key, base_url=f"{url}/v1", max_retries=0, **more)


def anthropic_client(url, key=KEY, **more):
    return anthropic.Anthropic(api_key=key, base_url=url, max_retries=0, **more)


def with_openai(url):
    create = openai_client(url).chat.completions.create
    for stream in (False, True):
        for status, name in CLASSES.items():
            call = lambda: create(model="gpt", messages=said(f"fail {status}"), stream=stream)
            error = raises(getattr(openai, name), call, status)
            assert error.body["message"] == "as asked for", (status, error.body)
        raises(openai.BadRequestError, lambda: create(model="nope", messages=MESSAGES, stream=stream), 400)
        # The gateway's time is up: an answer, with 408. The SDK's own time is up: no answer.
        call = lambda: create(model="slow", messages=MESSAGES, stream=stream, extra_body={"timeout": 0.2})
        raises(openai.APIStatusError, call, 408)
    raises(openai.APITimeoutError, lambda: create(model="slow", messages=MESSAGES, timeout=0.2))

    client = openai_client(url)
    raises(openai.NotFoundError, lambda: client.models.retrieve("nope"), 404)
    raises(openai.NotFoundError, lambda: client.post("/no/such/path", body={}, cast_to=object), 404)
    assert client.models.retrieve("gpt").id == "gpt"
    stranger = openai_client(url, "sk-stranger")
    raises(openai.AuthenticationError, lambda: stranger.chat.completions.create(model="gpt", messages=MESSAGES), 401)
    raises(openai.AuthenticationError, stranger.models.list, 401)
    narrow = openai_client(url, NARROW)
    raises(openai.PermissionDeniedError, lambda: narrow.chat.completions.create(model="slow", messages=MESSAGES), 403)
    # The upstream refuses the gateway's key: a client's own is not at fault, but the class is the same as with LiteLLM.
    raises(openai.AuthenticationError, lambda: create(model="gpt", messages=said("fail 401")), 401)


async def with_async_openai(url):
    client = openai.AsyncOpenAI(api_key=KEY, base_url=f"{url}/v1", max_retries=0)
    create = client.chat.completions.create
    for status, name in CLASSES.items():
        call = lambda: create(model="gpt", messages=said(f"fail {status}"))
        await raises_async(getattr(openai, name), call, status)
    stream = await create(model="model", messages=MESSAGES, stream=True)
    assert text_of([chunk async for chunk in stream]) == "right of way"
    async with client.chat.completions.stream(model="model", messages=MESSAGES) as stream:
        events = [event async for event in stream]
        final = await stream.get_final_completion()
    assert final.choices[0].message.content == "right of way" and len(events) > 3, final

    # Many at once.
    answers = await asyncio.gather(*(client.embeddings.create(model="model", input="a") for _ in range(20)))
    assert [answer.data[0].embedding for answer in answers] == [VECTOR] * 20, answers
    images = await client.images.generate(model="model", prompt="a cat")
    assert images.data[0].url == "https://images.example/1", images
    async with client.audio.speech.with_streaming_response.create(model="model", voice="alloy", input="hi") as speech:
        assert await speech.read() == b"ID3\x00\xff\xfb\x90"
    sound = ("speech.mp3", b"ID3\x00\xff", "audio/mpeg")
    written = await client.audio.transcriptions.create(model="model", file=sound)
    assert written.text == "right of way", written
    assert "gpt" in [model.id async for model in client.models.list()]


def with_anthropic(url, model):
    create = anthropic_client(url).messages.create
    for stream in (False, True):
        for status, name in {**CLASSES, 529: "OverloadedError"}.items():
            kind = getattr(anthropic, name, None) or anthropic.InternalServerError
            kind = {503: ServiceUnavailable, 529: Overloaded}.get(status, kind)
            call = lambda: create(model=model, max_tokens=5, messages=said(f"fail {status}"), stream=stream)
            error = raises(kind, call, status)
            assert error.body["type"] == "error" and error.body["request_id"], (status, error.body)
    call = lambda: create(model="slow", max_tokens=5, messages=MESSAGES, extra_body={"timeout": 0.2})
    error = raises_any(anthropic.APIStatusError, call)
    assert error.status_code in (408, 504) and error.body["error"]["type"] == "timeout_error", error.body
    raises(anthropic.APITimeoutError, lambda: create(model="slow", max_tokens=5, messages=MESSAGES, timeout=0.2))

    client = anthropic_client(url)
    raises(anthropic.NotFoundError, lambda: client.post("/v1/no/such/path", body={}, cast_to=object), 404)
    for key, asked, kind, status in [
        ("sk-stranger", model, anthropic.AuthenticationError, 401),
        (NARROW, "slow", anthropic.PermissionDeniedError, 403),
    ]:
        create = anthropic_client(url, key).messages.create
        raises(kind, lambda: create(model=asked, max_tokens=5, messages=MESSAGES), status)


def raises_any(kind, call):
    """The class, or one below it."""
    try:
        answer = call()
    except kind as error:
        return error
    raise AssertionError(f"{kind.__name__} was not raised, but there was an answer: {answer}")


# Anthropic's SDK has classes below InternalServerError, which it does not export.
ServiceUnavailable = getattr(anthropic._exceptions, "ServiceUnavailableError", anthropic.InternalServerError)
Overloaded = getattr(anthropic._exceptions, "OverloadedError", anthropic.InternalServerError)


def main():
    (url,) = sys.argv[1:]
    with_openai(url)
    asyncio.run(with_async_openai(url))
    for model in ("claude", "gpt"):
        with_anthropic(url, model)
    print("all classes raised")


main()
