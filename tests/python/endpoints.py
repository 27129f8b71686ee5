"""Calls every endpoint of a gateway that forwards, by OpenAI's SDK: endpoints.py URL.

Ends with "all endpoints answered", or with the first assertion that does not hold.
"""

import asyncio
import io
import sys

import openai

PRIORITY = {"priority": 7}


def prioritised(raw, priority="7"):
    """The SDK's parsed answer, after a look at the queue's headers."""
    assert raw.headers["x-vorrang-priority"] == priority, raw.headers
    assert raw.headers["x-vorrang-ticket"].startswith("arrival="), raw.headers
    return raw.parse()


def sound():
    return ("speech.mp3", b"\x00\xff\r\n--no boundary\r\n" * 1000, "audio/mpeg")


def json_endpoints(client):
    raw = client.with_raw_response
    vectors = prioritised(raw.embeddings.create(model="model", input=["a", "b"], extra_body=PRIORITY))
    assert [vector.embedding for vector in vectors.data] == [[1.0, -2.0]] * 2, vectors
    assert vectors.usage.total_tokens == 4, vectors

    floats = client.embeddings.create(model="model", input="a", encoding_format="float")
    assert floats.data[0].embedding == [1.0, -2.0], floats

    verdict = prioritised(raw.moderations.create(model="model", input="a", extra_body=PRIORITY))
    assert verdict.results[0].flagged is False, verdict

    response = prioritised(raw.responses.create(model="model", input="hi", extra_body=PRIORITY))
    assert response.output_text == "right of way" and response.usage.total_tokens == 8, response

    images = prioritised(raw.images.generate(model="model", prompt="a cat", extra_body=PRIORITY))
    assert images.data[0].url == "https://images.example/1", images

    speech = client.audio.speech.create(model="model", voice="alloy", input="hi", extra_body=PRIORITY)
    assert speech.content == b"ID3\x00\xff\xfb\x90", speech.content
    with client.audio.speech.with_streaming_response.create(model="model", voice="alloy", input="hi") as speech:
        assert b"".join(speech.iter_bytes()) == b"ID3\x00\xff\xfb\x90"


def forms(client):
    raw = client.with_raw_response
    create = raw.audio.transcriptions.create
    written = prioritised(create(model="model", file=sound(), language="de", extra_body=PRIORITY))
    assert written.text == "right of way", written
    written = prioritised(create(model="model", file=sound(), extra_headers={"x-vorrang-priority": "8"}), "8")
    assert written.text == "right of way", written

    written = prioritised(raw.audio.translations.create(model="model", file=sound(), extra_body=PRIORITY))
    assert written.text == "right of way", written

    image = ("cat.png", b"\x89PNG\r\n\x1a\n", "image/png")
    for images in [image, [image, image]]:
        edited = prioritised(raw.images.edit(model="model", image=images, prompt="a hat", extra_body=PRIORITY))
        assert edited.data[0].url == "https://images.example/1", edited


def errors(client):
    for call in [
        lambda: client.embeddings.create(model="nope", input="a"),
        lambda: client.audio.transcriptions.create(model="nope", file=sound()),
    ]:
        try:
            call()
            raise AssertionError("an unknown model was answered")
        except openai.BadRequestError as error:
            assert "Invalid model name passed in model=nope" in error.message, error
    try:
        client.audio.transcriptions.create(model="model", file=sound(), extra_body={"priority": "high"})
        raise AssertionError("a priority that is no number was taken")
    except openai.BadRequestError as error:
        assert "priority" in error.message, error


async def asynchronous(url):
    client = openai.AsyncOpenAI(api_key="anything", base_url=url, max_retries=0)
    vectors = await client.embeddings.create(model="model", input="a", extra_body=PRIORITY)
    assert vectors.data[0].embedding == [1.0, -2.0], vectors
    written = await client.audio.transcriptions.create(model="model", file=sound(), extra_body=PRIORITY)
    assert written.text == "right of way", written


def main():
    (url,) = sys.argv[1:]
    for base in [url, f"{url}/v1"]:
        client = openai.OpenAI(api_key="anything", base_url=base, max_retries=0)
        json_endpoints(client)
        forms(client)
        errors(client)
        asyncio.run(asynchronous(base))
    azure = openai.AzureOpenAI(api_key="anything", azure_endpoint=url, api_version="2024-10-21", max_retries=0)
    assert azure.embeddings.create(model="model", input="a").data[0].embedding == [1.0, -2.0]
    assert azure.audio.transcriptions.create(model="model", file=sound()).text == "right of way"
    print("all endpoints answered")


main()
