"""One peer in a process of its own, that sleeps until it is asked: `python -m peers.worker MODULE`.

A request is a line of JSON on stdin, {"do": a method of Session, and its arguments}, and the reply a line on stdout.
The first line on stdout says what runs here, or that it is not installed. The end of stdin is the end.
"""

from __future__ import annotations

import importlib
import itertools
import json
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any


class Session:
    """What can be asked for: each method returns the reply."""

    def __init__(self, peer: Any) -> None:
        self.peer = peer

    def setup(self, cell: str, size: list[int]) -> dict[str, Any]:
        """Build the model and do two steps on one batch: the second loss tells what the first update did."""
        from peers import work  # not before the peer is imported, who may have to come before NumPy

        shape = work.Size(*size)
        batches = work.batches(shape)
        self.batches = itertools.cycle(batches)
        self.model = self.peer.Model(cell, shape, work.weights(cell, shape))
        return {"losses": [self.model.step(*batches[0]) for _ in range(2)]}

    def step(self) -> float | None:
        """Do one training step on the next batch."""
        return self.model.step(*next(self.batches))

    def steps(self, count: int) -> dict[str, Any]:
        """Time so many training steps."""
        warm_up(self.step)
        seconds = []
        for _ in range(count):
            started = time.perf_counter()
            self.step()
            seconds.append(time.perf_counter() - started)
        return {"seconds": seconds}

    def generate(self, length: int) -> dict[str, Any]:
        """Time writing so many characters."""
        warm_up(lambda: self.model.generate(20))
        started = time.perf_counter()
        self.model.generate(length)
        return {"seconds": [(time.perf_counter() - started) / length]}


def warm_up(work: Callable[[], object]) -> None:
    """Work for a moment: the caches are full of what others did, and a core that has slept is slow at first."""
    until = time.perf_counter() + 0.05
    work()
    while time.perf_counter() < until:
        work()


def libraries() -> list[str]:
    """Return NumPy's version, and what is in use for linear algebra and threads, as far as it can be found out."""
    import numpy as np

    try:
        from threadpoolctl import threadpool_info
    except ImportError:
        blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
        return [f"NumPy {np.__version__}", f"{blas['name']} {blas['version']}"]
    names = ("internal_api", "version", "architecture", "num_threads")
    found = [" ".join(str(one[name]) for name in names if one.get(name)) for one in threadpool_info()]
    return [f"NumPy {np.__version__}", *(f"{one} thread(s)" for one in found)]


def peak_bytes() -> int:
    """Return the most memory that this process has had resident."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def main(name: str) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who started this process ends it
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints must not come between the replies

    def say(reply: dict[str, Any]) -> None:
        print(json.dumps(reply), file=replies, flush=True)

    try:
        peer = importlib.import_module(f"peers.{name}")
    except ImportError as error:
        say({"missing": str(error)})
        return
    session = Session(peer)
    say({"version": peer.version(), "uses": libraries()})
    while True:
        before = time.process_time()
        line = sys.stdin.readline()
        burnt = time.process_time() - before  # by threads that spin
        if not line:
            return
        request = json.loads(line)
        try:
            reply = getattr(session, request.pop("do"))(**request)
        except Exception:
            reply = {"error": traceback.format_exc()}
        say(reply | {"peak_bytes": peak_bytes(), "burnt": burnt})


if __name__ == "__main__":
    main(sys.argv[1])
