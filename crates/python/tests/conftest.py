"""What the tests of the Python package share: a Redis, an upstream, routers that are closed."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from vorrang import Router

PATIENCE = 30.0
PASSWORD = "of the tests' Redis"
MESSAGES = [{"role": "user", "content": "Hey!"}]


def mock(name="gpt", **params):
    """A deployment that is answered in this process."""
    return {"model_name": name, "litellm_params": {"model": "gpt-4o", "mock_response": "Hello!", **params}}


def until(condition):
    """Waits until it holds."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.005)


@pytest.fixture
def router():
    """Makes routers, and closes them in the end."""
    made = []

    def make(*models, **settings):
        made.append(Router(model_list=list(models) or [mock()], **settings))
        return made[-1]

    yield make
    for one in made:
        one.close(0.0)


@pytest.fixture(scope="session")
def redis_port(tmp_path_factory):
    """The port of a redis-server of the tests' own."""
    if shutil.which("redis-server") is None:
        pytest.fail("there is no redis-server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = {
        "port": port,
        "bind": "127.0.0.1",
        "save": "",
        "appendonly": "no",
        "dir": tmp_path_factory.mktemp("redis"),
        "requirepass": PASSWORD,
    }
    command = ["redis-server", *(word for name, value in options.items() for word in (f"--{name}", str(value)))]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        until(lambda: server.poll() is None and _answers(port))
        yield port
    finally:
        server.kill()
        server.wait()


def _answers(port):
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"-NOAUTH")
    except OSError:
        return False


@pytest.fixture(params=["memory", "redis"])
def shared(request):
    """Arguments for a queue in memory, and for one in a Redis, under a name of the test's own."""
    if request.param == "memory":
        return {}
    return on_redis(request.getfixturevalue("redis_port"), request.node.name)


def on_redis(port, name):
    """Arguments for a queue in a Redis."""
    name = "".join(letter if letter.isalnum() else "-" for letter in name)
    return {
        "redis_host": "127.0.0.1",
        "redis_port": port,
        "redis_password": PASSWORD,
        "vorrang_settings": {"redis_namespace": name},
    }


class Upstream:
    """An upstream that speaks OpenAI's format. What it does is said by the model.

    ``status-N``: that status. ``hang``: no answer. ``events-hang``: an event, and no end. ``events-fail``: an event,
    and an error. ``events-text``: an event, and one that is no JSON object. ``text``: an answer that is none.
    ``long``: a context that is too long. All others: the request as the answer's text.
    """

    def __init__(self):
        upstream = self
        self.requests = []
        self.open = 0

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                upstream.requests.append((self.path, body))
                upstream.open += 1
                try:
                    upstream._answer(self, body)
                finally:
                    upstream.open -= 1

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.base = f"http://127.0.0.1:{self._server.server_address[1]}/v1"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def deployment(self, name, **params):
        return {
            "model_name": name,
            "litellm_params": {"model": f"openai/{name}", "api_base": self.base, "api_key": "sk-x", **params},
        }

    def close(self):
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, handler, body):
        model = body["model"]
        if model == "hang":
            _until_left(handler)
        elif model.startswith("status-"):
            message = {"error": {"message": "not today", "type": "t", "param": None, "code": "c"}}
            _send(handler, int(model[7:]), message)
        elif model == "text":
            _send(handler, 200, "no object")
        elif model == "long":
            message = "This model's maximum context length is 8 tokens"
            _send(handler, 400, {"error": {"message": message, "code": "context_length_exceeded"}})
        elif model.startswith("events-"):
            handler.send_response(200)
            handler.send_header("content-type", "text/event-stream")
            handler.send_header("connection", "close")
            handler.end_headers()
            event = {"id": "c", "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": "a"}}]}
            handler.wfile.write(b"data: " + json.dumps(event).encode() + b"\n\n")
            if model == "events-hang":
                _until_left(handler)
            elif model == "events-text":
                handler.wfile.write(b"data: no JSON\n\n")
                _until_left(handler)
            else:
                handler.wfile.write(b'data: {"error": {"message": "broken", "code": "x"}}\n\n')
            handler.close_connection = True
        elif "input" in body:
            _send(handler, 200, {"object": "list", "model": model, "data": [{"index": 0, "embedding": [0.5, 1]}]})
        else:
            message = {"role": "assistant", "content": json.dumps(body)}
            choice = {"index": 0, "message": message, "text": json.dumps(body), "finish_reason": "stop"}
            _send(handler, 200, {"id": "a", "model": model, "choices": [choice]})


def _send(handler, status, body):
    content = json.dumps(body).encode()
    handler.send_response(status)
    handler.send_header("content-type", "application/json")
    handler.send_header("content-length", str(len(content)))
    handler.end_headers()
    handler.wfile.write(content)


def _until_left(handler):
    """Reads until the client has closed its connection."""
    handler.close_connection = True
    try:
        while handler.connection.recv(1024):
            pass
    except OSError:
        pass


@pytest.fixture
def upstream():
    server = Upstream()
    yield server
    server.close()
