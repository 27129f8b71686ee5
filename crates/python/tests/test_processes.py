"""Forks, signals, the end of the program."""

from __future__ import annotations

import json
import pickle
import signal
import socket
import subprocess
import sys
import time

import pytest
from conftest import MESSAGES, mock, on_redis

from vorrang import Router

SETUP = f"""
import asyncio, multiprocessing, os, signal, sys, threading
from vorrang import Router
MESSAGES = [{{"role": "user", "content": "Hey!"}}]
router = Router(model_list=[{mock(rpm=1)!r}, {mock("free")!r}], timeout=600)
"""


def run(program, *arguments):
    """What a program prints. It ends within seconds."""
    command = [sys.executable, "-c", SETUP + program, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_inherited_router_is_refused_and_a_new_one_works_after_a_fork():
    lines = run(
        """
router.completion("gpt", MESSAGES)
asyncio.run(asyncio.sleep(0))
if os.fork() == 0:
    for use in [router.status, lambda: router.completion("gpt", MESSAGES), lambda: asyncio.run(router.aclose())]:
        try:
            use()
        except RuntimeError as error:
            assert "Make a Router after the fork" in str(error)
            print("refused", flush=True)
    del router
    router = Router(model_list=[{"model_name": "gpt", "litellm_params": {"model": "gpt-4o", "mock_response": "child"}}])
    print(router.completion("gpt", MESSAGES).choices[0].message.content)
    print(asyncio.run(router.acompletion("gpt", MESSAGES)).choices[0].message.content, flush=True)
    sys.exit()
os.wait()
print("parent", router.status()["gpt"]["deployments"][0]["used"]["requests"])
"""
    )
    assert lines == ["refused"] * 3 + ["child"] * 2 + ["parent 1"]


def test_children_of_multiprocessing_make_their_own_router():
    lines = run(
        """
def child(number):
    params = {"model": "gpt-4o", "mock_response": str(number)}
    own = Router(model_list=[{"model_name": "gpt", "litellm_params": params}])
    return asyncio.run(own.acompletion("gpt", MESSAGES)).choices[0].message.content

# Calls are on their way while it forks.
for _ in range(20):
    threading.Thread(target=router.completion, args=("gpt", MESSAGES), daemon=True).start()
with multiprocessing.get_context("fork").Pool(3) as pool:
    print(pool.map(child, range(6)))
"""
    )
    assert lines == ["['0', '1', '2', '3', '4', '5']"]


def test_router_cannot_be_pickled(router):
    with pytest.raises(TypeError, match="make one there"):
        pickle.dumps(router())


@pytest.mark.parametrize(
    "wait",
    [
        "router.completion('gpt', MESSAGES)",
        "asyncio.run(beside_others())",
    ],
)
def test_interrupt_ends_a_call_that_waits(wait):
    # asyncio looks for signals when its loop turns, which it does while anything else happens there.
    program = f"""
router.completion("gpt", MESSAGES)
async def turn():
    while True:
        await asyncio.sleep(0.05)
async def beside_others():
    others = asyncio.ensure_future(turn())
    await router.acompletion("gpt", MESSAGES)
def tell():
    while router.status()["gpt"]["waiting_here"] == 0:
        pass
    print("waits", flush=True)
threading.Thread(target=tell).start()
try:
    {wait}
except KeyboardInterrupt:
    print("interrupted", flush=True)
while router.status()["gpt"]["waiting_here"]:
    pass
"""
    process = subprocess.Popen([sys.executable, "-c", SETUP + program], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "waits\n"
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=30)[0] == "interrupted\n"
    assert process.returncode == 0


@pytest.mark.parametrize(
    "left",
    [
        "",
        "stream = router.completion('free', MESSAGES, stream=True)",
        "threading.Thread(target=router.completion, args=('gpt', MESSAGES), daemon=True).start()",
        "loop = asyncio.new_event_loop(); task = loop.create_task(router.acompletion('gpt', MESSAGES))\n"
        "loop.run_until_complete(asyncio.sleep(0.05))",
    ],
)
def test_program_ends_with_calls_on_their_way(left):
    assert run(f"router.completion('gpt', MESSAGES)\n{left}\nprint('end')") == ["end"]


def test_program_ends_although_redis_does_not_answer():
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        start = time.monotonic()
        lines = run(
            """
params = {"model": "gpt-4o", "mock_response": "x", "rpm": 1}
router = Router(model_list=[{"model_name": "gpt", "litellm_params": params}],
                redis_host="127.0.0.1", redis_port=int(sys.argv[1]), timeout=0.2)
try:
    router.completion("gpt", MESSAGES)
except Exception as error:
    print(type(error).__name__)
""",
            str(silent.getsockname()[1]),
        )
    assert lines == ["Timeout"] or lines == ["ServiceUnavailableError"]
    assert time.monotonic() - start < 30


def test_processes_share_one_limit_and_one_order(redis_port):
    """Two processes: together as many calls as the limit allows, in the order of (priority, arrival)."""
    settings = on_redis(redis_port, "two processes")
    settings["vorrang_settings"]["window_seconds"] = 2
    program = """
import asyncio, json, sys, time
from vorrang import Router
settings = json.loads(sys.argv[1])
async def main():
    async with Router(**settings) as router:
        async def call(priority):
            answer = await router.acompletion("gpt", [{"role": "user", "content": "Hey!"}], priority=priority)
            ticket = answer._hidden_params["ticket"]
            print(json.dumps([ticket["granted"], priority, ticket["arrival"], ticket["entered"]]), flush=True)
        await asyncio.gather(*[call(index % 3) for index in range(15)])
asyncio.run(main())
"""
    settings = {"model_list": [mock(rpm=10)], "timeout": 600, **settings}
    command = [sys.executable, "-c", program, json.dumps(settings)]
    start = time.monotonic()
    children = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    granted = []
    for child in children:
        granted += [json.loads(line) for line in child.communicate(timeout=120)[0].splitlines()]
        assert child.returncode == 0
    # 30 calls, 10 in each window of two seconds: the last ones two windows after the first.
    assert len(granted) == 30 and time.monotonic() - start > 4
    granted.sort()
    for index, (grant, *place, _) in enumerate(granted):
        overtaken = [other for other in granted[index + 1 :] if other[1:3] < place and other[3] < grant]
        assert not overtaken, (granted[index], overtaken)


@pytest.mark.parametrize(
    "before",
    [
        "",
        # It does not happen.
        "try: router.close(-1)\nexcept ValueError: pass",
    ],
)
def test_session_in_redis_is_closed_at_the_end_of_the_program(redis_port, request, before):
    """What it left in the queue is not before a later call."""
    settings = on_redis(redis_port, request.node.name)
    program = f"""
import threading
from vorrang import Router
router = Router(model_list=[{mock(rpm=1)!r}], timeout=60, **{settings!r})
MESSAGES = [{{"role": "user", "content": "Hey!"}}]
router.completion("gpt", MESSAGES)
def wait():
    try:
        router.completion("gpt", MESSAGES, priority=-9)
    except Exception:
        pass
threading.Thread(target=wait, daemon=True).start()
while router.status()["gpt"]["waiting"] == 0:
    pass
{before}
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
    waits = []
    with Router(model_list=[mock(rpm=1)], timeout=0.1, on_wait=waits.append, **settings) as router:
        with pytest.raises(Exception, match="timed out"):
            router.completion("gpt", MESSAGES)
    assert [wait.ahead for wait in waits] == [0]
