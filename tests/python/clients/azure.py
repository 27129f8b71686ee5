"""AzureOpenAI and AsyncAzureOpenAI, which name the model in the path: azure.py GATEWAY_URL."""

import asyncio
import sys

import openai
from common import KEY, NARROW, PRIORITY, SYSTEM, VECTOR, raises, raises_async, text_of

VERSION = "2024-10-21"


def options(url, **more):
    return {"azure_endpoint": url, "api_version": VERSION, "max_retries": 0, **more}


def calls(client):
    create = client.chat.completions.create
    raw = client.chat.completions.with_raw_response.create(model="gpt", messages=SYSTEM, extra_body=PRIORITY)
    assert raw.headers["x-vorrang-priority"] == "7", raw.headers
    answer = raw.parse()
    assert answer.choices[0].message.content == "hello there", answer
    assert answer.usage.total_tokens == 14, answer

    assert text_of(create(model="model", messages=SYSTEM, stream=True)) == "right of way"
    vectors = client.embeddings.create(model="model", input=["a", "b"], extra_body=PRIORITY)
    assert [vector.embedding for vector in vectors.data] == [VECTOR] * 2, vectors


async def asynchronous(client):
    create = client.chat.completions.create
    answer = await create(model="gpt", messages=SYSTEM, extra_body=PRIORITY)
    assert answer.choices[0].message.content == "hello there", answer
    stream = await create(model="model", messages=SYSTEM, stream=True, extra_body=PRIORITY)
    assert text_of([chunk async for chunk in stream]) == "right of way"
    vectors = await client.embeddings.create(model="model", input="a")
    assert vectors.data[0].embedding == VECTOR, vectors
    await raises_async(openai.BadRequestError, lambda: create(model="nope", messages=SYSTEM), 400)


def main():
    (url,) = sys.argv[1:]
    for key in ({"api_key": KEY}, {"azure_ad_token": KEY}, {"azure_ad_token_provider": lambda: KEY}):
        calls(openai.AzureOpenAI(**options(url, **key)))
    asyncio.run(asynchronous(openai.AsyncAzureOpenAI(**options(url, api_key=KEY))))

    # A deployment that the client is made for: the path names it, whatever the body says.
    client = openai.AzureOpenAI(**options(url, api_key=KEY, azure_deployment="gpt"))
    answer = client.chat.completions.create(model="something else", messages=SYSTEM)
    assert answer.choices[0].message.content == "hello there", answer

    stranger = openai.AzureOpenAI(**options(url, api_key="sk-stranger"))
    raises(openai.AuthenticationError, lambda: calls(stranger), 401)
    narrow = openai.AzureOpenAI(**options(url, api_key=NARROW))
    raises(openai.PermissionDeniedError, lambda: narrow.embeddings.create(model="model", input="a"), 403)
    print("Azure's clients are served")


main()
