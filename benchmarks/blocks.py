"""How large a block of a fused kernel's NumPy calls should be, where there is no Numba.

    python benchmarks/blocks.py

A kernel goes through its arrays block by block, so that its scratch stays in a core's cache. With small blocks the time
goes to Python, with large ones to memory. Every size has a process of its own, and they take turns.
"""

import os
import statistics
import subprocess
import sys
import time

SIZES = (4096, 8192, 16384, 32768, 65536, 131072)
LAYERS = (
    ("LSTM", 50, 50, 128),
    ("GRU", 50, 50, 128),
    ("LSTM", 256, 20, 256),
    ("LSTM", 64, 64, 512),
    ("GRU", 64, 64, 512),
)
ROUNDS = 3


def milliseconds(name, B, T, H):
    import tinyrnn as tr

    layer, x, times = getattr(tr.nn, name)(H, H), tr.randn(T, B, H), []
    for _ in range(6):
        start = time.perf_counter()
        tr.mean(layer(x)[0] ** 2).backward()
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times[1:])


def measure(size):
    from tinyrnn.backends import kernel_numpy

    kernel_numpy.BLOCK = size
    print(*[milliseconds(*layer) for layer in LAYERS])


def main():
    environment = os.environ | {"TINYRNN_FAST": "0", "OPENBLAS_NUM_THREADS": "1"}
    found = {size: [] for size in SIZES}
    for _ in range(ROUNDS):
        for size in SIZES:
            command = [sys.executable, __file__, str(size)]
            run = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
            found[size].append([float(word) for word in run.stdout.split()])
    print("| elements |", " | ".join(f"{name} B={B} T={T} H={H}" for name, B, T, H in LAYERS), "|")
    print("|---" * (len(LAYERS) + 1) + "|")
    for size, rounds in found.items():
        medians = [statistics.median(times) for times in zip(*rounds, strict=True)]
        print(f"| {size} |", " | ".join(f"{ms:.1f} ms" for ms in medians), "|")


if __name__ == "__main__":
    measure(int(sys.argv[1])) if sys.argv[1:] else main()
