"""Keeps files at two accounts behind a gateway, by OpenAI's SDK: files.py URL.

Ends with "all files kept", or with the first assertion that does not hold.
"""

import asyncio
import sys

import openai

CONTENT = b'{"custom_id": "1", "body": {"model": "m"}}\r\n--b\r\n\x00\xff' * 2000


def whole_life(client, **options):
    """A file's life, and a batch of it."""
    file = client.files.create(file=("a b.jsonl", CONTENT), purpose="batch", **options)
    assert (file.bytes, file.filename, file.purpose) == (len(CONTENT), "a b.jsonl", "batch"), file
    assert client.files.retrieve(file.id, **options) == file
    assert file.id in [known.id for known in client.files.list(**options)]
    assert client.files.content(file.id, **options).content == CONTENT
    with client.files.with_streaming_response.content(file.id, **options) as answer:
        assert b"".join(answer.iter_bytes()) == CONTENT
    batch = client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h", **options
    )
    assert batch.status == "validating", batch
    assert client.batches.retrieve(batch.id, **options).status == "completed"
    assert [known.id for known in client.batches.list(limit=1, **options)] == [batch.id]
    assert client.batches.cancel(batch.id, **options).status == "cancelling"
    assert client.files.delete(file.id, **options).deleted
    try:
        client.files.content(file.id, **options)
        raise AssertionError("a file that was deleted has content")
    except openai.NotFoundError as error:
        assert f"upstream: no file {file.id}" in error.message, error


def errors(url, client):
    try:
        client.files.list(extra_query={"custom_llm_provider": "mistral"})
        raise AssertionError("a provider without an account was called")
    except openai.BadRequestError as error:
        assert "the provider mistral has no account here" in error.message, error
    try:
        openai.OpenAI(api_key="wrong", base_url=url, max_retries=0).files.list()
        raise AssertionError("a wrong key was taken")
    except openai.AuthenticationError:
        pass


async def asynchronous(url):
    client = openai.AsyncOpenAI(api_key="sk-client", base_url=url, max_retries=0)
    file = await client.files.create(file=("a", CONTENT), purpose="user_data")
    assert (await client.files.content(file.id)).content == CONTENT
    assert (await client.files.delete(file.id)).deleted


def main():
    (url,) = sys.argv[1:]
    for base in [url, f"{url}/v1"]:
        client = openai.OpenAI(api_key="sk-client", base_url=base, max_retries=0)
        whole_life(client)
        whole_life(client, extra_headers={"custom-llm-provider": "azure"})
        whole_life(client, extra_query={"custom_llm_provider": "azure"})
        errors(base, client)
        asyncio.run(asynchronous(base))
        file = client.files.create(
            file=("a", b"b"), purpose="assistants", extra_body={"custom_llm_provider": "azure"},
        )
        assert client.files.delete(file.id, extra_query={"custom_llm_provider": "azure"}).deleted
    whole_life(openai.OpenAI(api_key="sk-client", base_url=f"{url}/azure/v1", max_retries=0))
    print("all files kept")


main()
