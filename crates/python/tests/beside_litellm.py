"""Calls per second and memory of ``vorrang.Router`` beside LiteLLM's, with a mock deployment.

    python beside_litellm.py [REDIS_PORT]

Needs ``vorrang`` (a release wheel) and ``litellm`` in one environment. Each router runs in a process of its own, in
turns, so that both see the same machine. With a port both share their state on that Redis.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import time

ROUNDS = 5
CALLS = {1: 300, 16: 1000, 64: 2000}
MESSAGES = [{"role": "user", "content": "Hey!"}]


def rss_mib():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


async def measure(router):
    async def call():
        await router.acompletion(model="gpt", messages=MESSAGES, priority=0)

    async def some(count):
        for _ in range(count):
            await call()

    await some(20)
    for clients, calls in CALLS.items():
        start, cpu = time.perf_counter(), time.process_time()
        await asyncio.gather(*(some(calls // clients) for _ in range(clients)))
        took, used = time.perf_counter() - start, time.process_time() - cpu
        done = calls // clients * clients
        print(clients, done / took, used / done * 1e6, rss_mib(), flush=True)


def child(name, port):
    params = {"model": "gpt-4o", "mock_response": "Hello!", "rpm": 10_000_000}
    settings = {"model_list": [{"model_name": "gpt", "litellm_params": params}], "timeout": 60}
    if port:
        settings.update(redis_host="127.0.0.1", redis_port=int(port))
    if name == "vorrang":
        from vorrang import Router
    else:
        from litellm import Router
    asyncio.run(measure(Router(**settings)))


def main(port):
    results = {}
    for _ in range(ROUNDS):
        for name in ("litellm", "vorrang"):
            command = [sys.executable, __file__, "--child", name, port]
            output = subprocess.run(command, check=True, capture_output=True, text=True, timeout=600).stdout
            for line in output.splitlines():
                fields = line.split()
                if len(fields) == 4 and fields[0].isdigit():
                    results.setdefault((name, int(fields[0])), []).append([float(field) for field in fields[1:]])
    print("router   clients   calls/s   CPU us/call   MiB")
    for (name, clients), rounds in sorted(results.items(), key=lambda one: (one[0][1], one[0][0])):
        rate, cpu, memory = (statistics.median(column) for column in zip(*rounds))
        print(f"{name:8} {clients:7} {rate:9.0f} {cpu:13.0f} {memory:5.0f}")


if sys.argv[1:2] == ["--child"]:
    child(sys.argv[2], sys.argv[3] if len(sys.argv) > 3 else "")
else:
    main(sys.argv[1] if len(sys.argv) > 1 else "")
