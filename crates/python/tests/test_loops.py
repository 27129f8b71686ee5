"""Event loops and threads."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import threading
import time

import pytest
import uvloop
from conftest import MESSAGES, mock, until

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture(params=LOOPS)
def loop(request):
    loop = LOOPS[request.param]()
    yield loop
    loop.close()


def test_every_kind_of_loop_is_served(router, loop):
    one = router()

    async def calls():
        answers = await asyncio.gather(*[one.acompletion("gpt", MESSAGES) for _ in range(50)])
        stream = await one.acompletion("gpt", MESSAGES, stream=True)
        return len(answers), "".join([event.choices[0].delta.content or "" async for event in stream])

    assert loop.run_until_complete(calls()) == (50, "Hello!")


def test_cancelled_task_leaves_the_queue_of_every_kind_of_loop(router, loop):
    one = router(mock(rpm=1))
    loop.run_until_complete(one.acompletion("gpt", MESSAGES))
    with pytest.raises(asyncio.TimeoutError):
        loop.run_until_complete(asyncio.wait_for(one.acompletion("gpt", MESSAGES), 0.1))
    until(lambda: one.status()["gpt"]["waiting"] == 0)


def test_several_loops_use_one_router(router):
    one = router()
    counts = []

    async def calls():
        return len([await one.acompletion("gpt", MESSAGES) for _ in range(100)])

    threads = [threading.Thread(target=lambda: counts.append(asyncio.run(calls()))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # One after the other, too.
    counts.append(asyncio.run(calls()))
    assert counts == [100] * 5


def test_loop_that_is_closed_with_calls_takes_them_out_of_the_queue(router):
    one = router(mock(rpm=1))

    async def leave_one_behind():
        await one.acompletion("gpt", MESSAGES)
        task = asyncio.ensure_future(one.acompletion("gpt", MESSAGES))
        while one.status()["gpt"]["waiting_here"] == 0:
            await asyncio.sleep(0.01)
        assert not task.done()

    # It cancels what is left.
    asyncio.run(leave_one_behind())
    until(lambda: one.status()["gpt"]["waiting_here"] == 0)


def test_other_threads_run_while_a_call_waits(router):
    one = router(mock(rpm=1), timeout=0.5)
    one.completion("gpt", MESSAGES)
    ended = []
    thread = threading.Thread(target=lambda: ended.append(pytest.raises(Exception, one.completion, "gpt", MESSAGES)))
    thread.start()
    until(lambda: one.status()["gpt"]["waiting_here"] == 1)
    turns = 0
    while not ended:
        turns += 1
        time.sleep(0.001)
    thread.join()
    assert turns > 10


def test_call_of_a_thread_inside_of_a_loop_blocks_only_itself(router):
    one = router()

    async def call():
        return one.completion("gpt", MESSAGES), await one.acompletion("gpt", MESSAGES)

    for answer in asyncio.run(call()):
        assert answer.choices[0].message.content == "Hello!"


def test_async_with_closes_the_router(router):
    async def use():
        async with router() as one:
            await one.acompletion("gpt", MESSAGES)
        with pytest.raises(Exception, match="shutting down"):
            await one.acompletion("gpt", MESSAGES)

    asyncio.run(use())


@pytest.mark.parametrize("kind", LOOPS)
def test_loops_that_are_closed_with_calls_leave_no_descriptors(router, kind):
    one = router(mock(rpm=1))
    one.completion("gpt", MESSAGES)

    def descriptors():
        gc.collect()
        return len(os.listdir("/proc/self/fd"))

    def leave_one_behind():
        loop = LOOPS[kind]()
        # The loop's own hook would print the tasks that it loses.
        loop.set_exception_handler(lambda *_: None)
        task = loop.create_task(one.acompletion("gpt", MESSAGES))
        while one.status()["gpt"]["waiting_here"] == 0:
            loop.run_until_complete(asyncio.sleep(0.001))
        loop.close()
        assert not task.done()

    leave_one_behind()
    until(lambda: descriptors() and one.status()["gpt"]["waiting_here"] == 0)
    before = descriptors()
    for _ in range(10):
        leave_one_behind()
        until(lambda: descriptors() and one.status()["gpt"]["waiting_here"] == 0)
    until(lambda: descriptors() <= before)


def test_call_whose_task_nobody_holds_goes_on(router):
    one = router(mock(max_parallel_requests=1))
    done = []

    async def call():
        done.append(await one.acompletion("gpt", MESSAGES))

    async def forget():
        async with one.permit("gpt"):
            asyncio.ensure_future(call())
            while one.status()["gpt"]["waiting_here"] == 0:
                await asyncio.sleep(0.01)
            gc.collect()
            assert one.status()["gpt"]["waiting_here"] == 1
        while not done:
            await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(forget(), 30))


@pytest.mark.parametrize("name", ["gevent", "nothing"])
def test_threads_that_gevent_has_patched_are_refused(name):
    patch = "from gevent import monkey; monkey.patch_all()" if name == "gevent" else "import gevent.monkey"
    program = f"""
{patch}
from vorrang import Router
try:
    Router(model_list=[{mock()!r}])
    print("made")
except RuntimeError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert ("gevent has patched" if name == "gevent" else "made") in done.stdout
