"""An instance of a fleet that is a Python program: it takes calls by HTTP, and makes them with ``vorrang.Router``.

    fleet_member.py --config FILE --host HOST --port PORT

So the load test's clients and its referee judge it as they judge a gateway.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal

from vorrang import Router
from vorrang.exceptions import OpenAIError

PASSED = ("x-vorrang-", "x-litellm-")


class Member:
    def __init__(self, router):
        self.router = router

    async def connection(self, reader, writer):
        try:
            while (request := await read(reader)) is not None:
                path, body = request
                answering = asyncio.ensure_future(self.answer(path, body, writer))
                # A client sends nothing before it has its answer: what comes is the end of its connection.
                leaving = asyncio.ensure_future(reader.read(1))
                await asyncio.wait([answering, leaving], return_when=asyncio.FIRST_COMPLETED)
                if not answering.done():
                    answering.cancel()
                    await asyncio.wait([answering])
                    return
                leaving.cancel()
                await asyncio.wait([leaving])
                answering.result()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def answer(self, path, body, writer):
        if path == "/health/readiness":
            return send(writer, 200, {}, b"{}")
        call = self.router.acompletion if path.endswith("/chat/completions") else self.router.atext_completion
        try:
            answer = await call(**json.loads(body))
            if hasattr(answer, "__aiter__"):
                await self.events(answer, writer)
            else:
                send(writer, 200, answer._hidden_params["additional_headers"], answer.model_dump_json().encode())
        except OpenAIError as error:
            send(writer, error.status_code, error.headers, error.response.content)
        await writer.drain()

    async def events(self, stream, writer):
        headers = stream._hidden_params["additional_headers"]
        head(writer, 200, headers, "text/event-stream", "transfer-encoding: chunked")
        async for event in stream:
            chunk(writer, b"data: " + event.model_dump_json().encode() + b"\n\n")
            await writer.drain()
        chunk(writer, b"data: [DONE]\n\n")
        chunk(writer, b"")


async def read(reader):
    """The path and the body of the next request; ``None`` where the connection has ended."""
    try:
        lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    except asyncio.IncompleteReadError:
        return None
    fields = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
    body = await reader.readexactly(int(fields.get("content-length", 0)))
    return lines[0].split(" ")[1], body


def head(writer, status, headers, kind, length):
    lines = [f"HTTP/1.1 {status} -", f"content-type: {kind}", length]
    lines += [f"{name}: {value}" for name, value in headers.items() if name.startswith(PASSED)]
    writer.write("\r\n".join([*lines, "", ""]).encode("latin-1"))


def send(writer, status, headers, content):
    head(writer, status, headers, "application/json", f"content-length: {len(content)}")
    writer.write(content)


def chunk(writer, content):
    writer.write(b"%x\r\n%s\r\n" % (len(content), content))


async def main():
    options = argparse.ArgumentParser()
    options.add_argument("--config", required=True)
    options.add_argument("--host", required=True)
    options.add_argument("--port", required=True, type=int)
    options = options.parse_args()
    async with Router.from_config(options.config) as router:
        server = await asyncio.start_server(Member(router).connection, options.host, options.port, backlog=4096)
        ended = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
        await ended.wait()
        server.close()


asyncio.run(main())
