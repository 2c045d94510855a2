"""The peers, and how each is kept in a process of its own: the asking side of `peers/worker.py`."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

HERE = Path(__file__).parent
SECOND_BIAS = 0.05  # what PyTorch's, which is trained too, takes off the loss besides
SETTLE = 0.2  # seconds; BLAS threads spin for about half of it after their last product
THREADS = (
    *("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS", "NUMBA_NUM_THREADS"),
    "NPROC",  # XLA's
)


class Peer(NamedTuple):
    """One who does the work.

    label, in the tables; module, in peers/; environment, of its process; slow, so left out where a step takes long;
    trains and writes, what is measured of it; slack, by which part the first step may take more or less off the loss.
    """

    label: str
    module: str
    environment: Mapping[str, str] = MappingProxyType({})
    slow: bool = False
    trains: bool = True
    writes: bool = False
    slack: float = 0.005


PEERS = {
    "tinyrnn": Peer("tinyrnn", "ours", writes=True),
    "tinyrnn-eager": Peer("tinyrnn, not captured", "ours", {"NOT_CAPTURED": "1"}, writes=True),
    "tinyrnn-plain": Peer("tinyrnn, no Numba", "ours", {"TINYRNN_FAST": "0"}, writes=True),
    "pytorch": Peer("PyTorch", "pytorch", writes=True, slack=SECOND_BIAS),
    "pytorch-cells": Peer("PyTorch's cells", "pytorch_cells", trains=False, writes=True, slack=SECOND_BIAS),
    "jax": Peer("JAX", "jax_scan", writes=True),
    "autograd": Peer("autograd", "hips_autograd", slow=True),
    "mygrad": Peer("MyGrad", "my_grad", slow=True),
    "products": Peer("own matrix products", "products"),
}
SUBJECTS = ("tinyrnn", "tinyrnn-eager", "tinyrnn-plain")  # compared with the others


class PeerError(Exception):
    """A peer that did not do what it was asked for, or not the same as the others."""


def environment(threads: int, **more: str) -> dict[str, str]:
    """Return the environment in which a process has so many threads.

    OMP_WAIT_POLICY is left alone: PASSIVE makes PyTorch take two to three times as long.
    """
    return os.environ | dict.fromkeys(THREADS, str(threads)) | more


class Worker:
    """A peer's process.

    Attributes: hello, the first thing it said; burnt, the most seconds of processor time that it has used up while it
    waited to be asked, and which the others went without.
    """

    def __init__(self, name: str, threads: int) -> None:
        self.name, self.peer = name, PEERS[name]
        self.burnt = 0.0
        self.process = subprocess.Popen(
            [sys.executable, "-m", "peers.worker", self.peer.module],
            cwd=HERE,
            env=environment(threads, **self.peer.environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            self.hello = self.reply()
        except BaseException:
            self.close()
            raise

    def ask(self, do: str, **details: Any) -> dict[str, Any]:
        """Ask for something, and wait for the reply."""
        time.sleep(SETTLE)  # until the threads of whoever worked last are asleep
        assert self.process.stdin
        self.process.stdin.write(json.dumps({"do": do, **details}) + "\n")
        self.process.stdin.flush()
        reply = self.reply()
        self.burnt = max(self.burnt, reply["burnt"])
        return reply

    def seconds(self, do: str, **details: Any) -> list[float]:
        """Ask for something that is timed."""
        times: list[float] = self.ask(do, **details)["seconds"]
        return times

    def reply(self) -> dict[str, Any]:
        """Read a line."""
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            raise PeerError(f"{self.peer.label}: its process ended with status {self.process.wait()}")
        reply: dict[str, Any] = json.loads(line)
        if "error" in reply:
            raise PeerError(f"{self.peer.label}: {reply['error']}")
        return reply

    def close(self) -> None:
        """End the process, whatever it is doing."""
        self.process.kill()
        self.process.communicate()


@contextlib.contextmanager
def working(names: list[str], threads: int) -> Iterator[dict[str, Worker]]:
    """Start the peers, each afresh, and see that none is left behind."""
    with contextlib.ExitStack() as stack:
        workers = {}
        for name in names:
            workers[name] = Worker(name, threads)
            stack.callback(workers[name].close)
        yield workers
