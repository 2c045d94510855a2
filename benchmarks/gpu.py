"""Prove tinyrnn on a CUDA device, and measure it: the tests that need one, then training steps beside PyTorch's cuDNN.

    python benchmarks/gpu.py [--only tests] [--cells lstm] [--sizes h512] [--tf32] [--rounds 5] [--out FILE]

It adds a section to docs/gpu-results.md. Times are the device's own, between two of its events, after warm-up; the
device is not waited for in between, nor are values read. Ours and theirs take turns and do the same work: the character
model of `peers/work.py`, whose losses are compared first, with inputs that are on the device already. What is captured
is one CUDA graph of the forward and backward pass and the clipping; Adam, whose rate is Python's, comes after it.
"""

from __future__ import annotations

import argparse
import datetime
import gc
import itertools
import os
import re
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from peers import ours
from peers.work import CLIP, GATES, Size, V, batches, weights

import tinyrnn as tr
from tinyrnn import backends, optim

HERE = Path(__file__).parent
CELLS = ("lstm", "gru", "rnn")
SIZES = {  # B, T, H, L
    "char-rnn": Size(50, 50, 128, 2),
    "h512": Size(64, 128, 512, 2),
    "h1024": Size(256, 128, 1024, 2),
}
BARS = {("lstm", "h512"): 1.5, ("lstm", "h1024"): 1.2}  # the most that a captured step may take of cuDNN's
Step = Callable[[], Any]  # does a training step, and returns its loss, which stays on the device


# ---------------------------------------------------------------- who works


class Ours(ours.Model):
    """The character model on the backend that is the current one; its step reads nothing."""

    def __init__(self, cell: str, size: Size, captured: bool) -> None:
        super().__init__(cell, size, weights(cell, size))
        self.loss_of = tr.capture(self.clipped, self.network) if captured else self.clipped
        self.batches = itertools.cycle([(tr.tensor(x), tr.tensor(y)) for x, y in batches(size)])

    def clipped(self, x: tr.Tensor, y: tr.Tensor) -> tr.Tensor:
        """Return the loss, and leave its gradients, clipped."""
        loss = self.gradients(x, y)
        optim.clip_grad_norm(self.network.parameters(), CLIP)
        return loss

    def __call__(self) -> tr.Tensor:
        """Do a training step."""
        self.optimizer.zero_grad()
        loss = self.loss_of(*next(self.batches))
        self.optimizer.step()
        return loss


def theirs(cell: str, size: Size, place: str = "cuda") -> Step:
    """Return PyTorch's step: nn.LSTM and so on, which cuDNN computes, and its Adam."""
    import torch
    from peers import pytorch

    model = pytorch.Model(cell, size, weights(cell, size)).to(place)
    turns = itertools.cycle([(torch.tensor(x, device=place), torch.tensor(y, device=place)) for x, y in batches(size)])

    def step() -> Any:
        x, y = next(turns)
        h, _ = model.recurrent(model.embedding(x))
        loss = torch.nn.functional.cross_entropy(model.output(h).flatten(0, 1), y.flatten())
        model.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        model.optimizer.step()
        return loss

    return step


def products(cupy: Any, cell: str, size: Size) -> Step:
    """Return the matrix products of a step by themselves, the T small ones of each layer one by one."""
    (B, T, H, L), wide = size, GATES[cell] * size.H
    h, dz, logits = (cupy.ones((T, B, n), "float32") for n in (H, wide, V))
    W, W_out = (cupy.ones((H, n), "float32") for n in (wide, V))
    rows_h, rows_dz, rows_logits = (x.reshape(T * B, -1) for x in (h, dz, logits))

    def step() -> None:
        for _ in range(L):
            cupy.matmul(rows_h, W)  # x W_x, of all steps
            for t in range(T):
                cupy.matmul(h[t], W)  # h W_h
            for t in range(T):
                cupy.matmul(dz[t], W.T)  # ∂L/∂h
            cupy.matmul(rows_dz, W.T)  # ∂L/∂x
            for _ in range(2):
                cupy.matmul(rows_h.T, rows_dz)  # ∂L/∂W_x, ∂L/∂W_h
        cupy.matmul(rows_h, W_out)
        cupy.matmul(rows_logits, W_out.T)
        cupy.matmul(rows_h.T, rows_logits)

    return step


def operations(cell: str, size: Size) -> float:
    """Return the multiplications and additions in the matrix products of a step."""
    B, T, H, L = size
    return 2.0 * B * T * (L * 6 * H * GATES[cell] * H + 3 * H * V)


# ---------------------------------------------------------------- measuring


class Clock:
    """The device's clock, as CuPy or as PyTorch reads it."""

    def __init__(self, library: Any, **timed: bool) -> None:
        self.event, self.elapsed = library.cuda.Event, getattr(library.cuda, "get_elapsed_time", None)
        self.timed = timed

    def milliseconds(self, step: Step, count: int) -> float:
        """Return what the device takes for a step, of so many."""
        start, end = (self.event(**self.timed) for _ in range(2))
        start.record()
        for _ in range(count):
            step()
        end.record()
        end.synchronize()
        return float(self.elapsed(start, end) if self.elapsed else start.elapsed_time(end)) / count


def in_turns(steps: dict[str, tuple[Step, Clock]], rounds: int, seconds: float = 0.5) -> dict[str, float]:
    """Return the median milliseconds of each step; each turn takes about so many seconds."""
    counts = {}
    for name, (step, clock) in steps.items():
        clock.milliseconds(step, 5)  # compiles, fills the memory pool, wakes the device up
        counts[name] = max(3, round(1e3 * seconds / max(clock.milliseconds(step, 3), 1e-3)))
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, (step, clock) in steps.items():
            times[name].append(clock.milliseconds(step, counts[name]))
    return {name: statistics.median(each) for name, each in times.items()}


def ceiling(cupy: Any, clock: Clock) -> float:
    """Return the operations a millisecond of one large matrix product in float32."""
    n = 8192
    a, b = (cupy.full((n, n), 0.5, "float32") for _ in range(2))
    (ms,) = in_turns({"": (lambda: cupy.matmul(a, b), clock)}, rounds=3).values()
    return 2.0 * n**3 / ms


def python_milliseconds(step: Step, wait: Callable[[], None]) -> float:
    """Return the milliseconds in which Python asks an idle device for a step, whether that is done by then or not."""
    times = []
    for _ in range(5):
        wait()
        started = time.perf_counter()
        step()
        times.append(1e3 * (time.perf_counter() - started))
    wait()
    return statistics.median(times)


def our_peak(cupy: Any, step: Step) -> float:
    """Return the most MiB that arrays and graphs use in a step."""
    device: Any = backends.current()

    class Peak(cupy.cuda.MemoryHook):  # type: ignore[misc]  # CuPy's class is Any
        name = "peak"
        now = highest = device.memory()[0]

        def malloc_postprocess(self, **given: int) -> None:
            self.now += given["mem_size"]
            self.highest = max(self.highest, self.now)

        def free_postprocess(self, **given: int) -> None:
            self.now -= given["mem_size"]

    with Peak() as peak:
        step()
    return float(peak.highest) / 2**20


def their_peak(torch: Any, step: Any) -> float:
    """Return the most MiB that tensors use in a step."""
    torch.cuda.reset_peak_memory_stats()
    step()
    return float(torch.cuda.max_memory_allocated()) / 2**20


def counted(torch: Any, step: Step, wait: Callable[[], None]) -> tuple[int, int]:
    """Return the kernels of a step, and the copies from the device to the host, by PyTorch's profiler: it sees all."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        step()
        wait()
    names = [event.name for event in profile.events() if event.device_type == torch.autograd.DeviceType.CUDA]
    kernels = [name for name in names if not name.startswith(("Memcpy", "Memset"))]
    return len(kernels), sum("DtoH" in name for name in names)


def see_same_work(cell: str, size: Size, ours: Step, theirs: Step) -> None:
    """See that the losses of two steps agree as in compare.py; PyTorch's second bias takes a little more off.

    Raises: SystemExit if they do not.
    """
    (first, second), (before, after) = ([float(step().item()) for _ in range(2)] for step in (ours, theirs))
    if not (abs(before - first) < 1e-3 * first and abs(after - second) < 0.02 * second):
        sys.exit(f"not the same work: {cell}, {tuple(size)}: our losses {first}, {second}; theirs {before}, {after}")


# ---------------------------------------------------------------- the command

HEAD = [
    *("cell", "B, T, H, L", "captured, ms", "not captured, ms", "cuDNN, ms", "captured / cuDNN", "at most"),
    *("captured: Python, ms", "share of a large product's rate", "own products, ms", "kernels", "copies to the host"),
    *("peak, MiB", "cuDNN's, MiB"),
]


def measure(cell: str, name: str, options: argparse.Namespace, cupy: Any, torch: Any, rate: float) -> list[str]:
    """Return a row of the table."""
    size, device = SIZES[name], backends.current()
    clock = Clock(cupy)
    captured, plain = (Ours(cell, size, captured) for captured in (True, False))
    steps: dict[str, tuple[Step, Clock]] = {"captured": (captured, clock), "plain": (plain, clock)}
    steps["products"] = (products(cupy, cell, size), clock)
    if torch:
        steps["cuDNN"] = (theirs(cell, size), Clock(torch, enable_timing=True))
        see_same_work(cell, size, captured, steps["cuDNN"][0])
    ms = in_turns(steps, options.rounds)
    cudnn = steps.pop("cuDNN")[0] if torch else None
    steps.clear()
    del plain
    gc.collect()
    row = {
        "cell": cell,
        "B, T, H, L": ", ".join(map(str, size)),
        "captured, ms": f"{ms['captured']:.2f}",
        "not captured, ms": f"{ms['plain']:.2f}",
        "captured: Python, ms": f"{python_milliseconds(captured, device.synchronize):.2f}",
        "share of a large product's rate": f"{operations(cell, size) / ms['captured'] / rate:.0%}",
        "own products, ms": f"{ms['products']:.2f}",
    }
    if torch:
        ratio, most = ms["captured"] / ms["cuDNN"], BARS.get((cell, name))
        kernels, copies = counted(torch, captured, device.synchronize)
        row |= {"cuDNN, ms": f"{ms['cuDNN']:.2f}", "captured / cuDNN": f"{ratio:.2f}"}
        row |= {"kernels": str(kernels), "copies to the host": str(copies)} if kernels else {}
        row |= {"at most": f"{most} {'holds' if ratio <= most else '**does not hold**'}"} if most else {}
        row["cuDNN's, MiB"] = f"{their_peak(torch, cudnn):,.0f}"
    row["peak, MiB"] = f"{our_peak(cupy, captured):,.0f}"
    return [row.get(column, "–") for column in HEAD]


def rows(options: argparse.Namespace, cupy: Any, torch: Any) -> Iterator[list[str]]:
    """Yield a row for each cell and size; one that the device has no room for says so."""
    rate = ceiling(cupy, Clock(cupy))
    print(f"a large matrix product: {rate / 1e9:.1f} TFLOP/s", file=sys.stderr)
    for cell, name in itertools.product(options.cells, options.sizes):
        print(f"{datetime.datetime.now():%H:%M:%S} {cell}, {name}", file=sys.stderr)
        try:
            yield measure(cell, name, options, cupy, torch, rate)
        except (MemoryError, RuntimeWarning, tr.errors.BackendError) as error:
            told = str(error).splitlines()[0].replace("|", "/")
            yield [cell, ", ".join(map(str, SIZES[name])), told, *["–"] * (len(HEAD) - 3)]
        gc.collect()
        cupy.get_default_memory_pool().free_all_blocks()
        if torch:
            torch.cuda.empty_cache()


def run_tests() -> tuple[str, bool]:
    """Run the tests that need a device, and return what pytest says of them at its end and whether all passed."""
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "-rs", "--no-header"]
    ran = subprocess.run(command, cwd=HERE.parent, stdout=subprocess.PIPE, encoding="utf-8", check=False)
    print(ran.stdout, file=sys.stderr)
    last = ran.stdout.strip().splitlines()[-1] if ran.stdout.strip() else "pytest said nothing"
    return re.sub(r"[=]+", "", last).strip(), ran.returncode == 0


def cuda_pytorch() -> Any:
    """Return PyTorch if it is installed with CUDA, else None."""
    try:
        import torch
    except ImportError:
        return None
    return torch if torch.cuda.is_available() else None


def set_tf32(cupy: Any, torch: Any, allowed: bool) -> None:
    """Let both compute products of float32 in TF32, which has 10 bits in place of 23, or neither."""
    from cupy._core import _routines_linalg, set_compute_type

    kind = _routines_linalg.COMPUTE_TYPE_TF32 if allowed else _routines_linalg.COMPUTE_TYPE_DEFAULT
    set_compute_type("float32", kind)
    if torch:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed


def section(options: argparse.Namespace, cupy: Any, torch: Any, tests: str, table: list[list[str]]) -> str:
    """Return the section for docs/gpu-results.md."""
    runtime, facts = cupy.cuda.runtime, cupy.cuda.runtime.getDeviceProperties(options.device)
    about = [
        f"driver for CUDA {runtime.driverGetVersion() // 1000}.{runtime.driverGetVersion() % 1000 // 10}",
        *(f"tinyrnn {tr.__version__}", f"CuPy {cupy.__version__}"),
        f"PyTorch {torch.__version__}, cuDNN {torch.backends.cudnn.version()}" if torch else "no PyTorch with CUDA",
        f"TF32 {'allowed' if options.tf32 else 'off'} for both",
    ]
    lines = [f"## {facts['name'].decode()}, {datetime.date.today()}", ""]
    lines += [f"`python benchmarks/gpu.py {' '.join(sys.argv[1:])}`".replace(" `", "`") + f"; {', '.join(about)}.", ""]
    lines += [f"`pytest -m gpu`: {tests}", ""] if tests else []
    if table:
        lines += [f"| {' | '.join(line)} |" for line in (HEAD, ["---"] * len(HEAD), *table)]
        told = f"Medians of {options.rounds} turns, in the device's time; a step is the character model's, with V=65."
        lines += ["", told, "Forward, backward, clipping and Adam; float32."]
    return "\n".join(lines).rstrip() + "\n"


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--only", choices=["tests", "timings"], help="(default: both)")
    add("--cells", nargs="+", choices=CELLS, default=list(CELLS), help="(default: all three)")
    add("--sizes", nargs="+", choices=SIZES, default=list(SIZES), help="(default: all three)")
    add("--rounds", type=int, default=5, help="turns of each (default: 5)")
    add("--tf32", action="store_true", help="let both multiply float32 in TF32 (default: neither)")
    add("--out", type=Path, default=HERE.parent / "docs" / "gpu-results.md", help="(default: docs/gpu-results.md)")
    options = parser.parse_args()
    options.device = int(os.environ.get("TINYRNN_GPU", "cupy").partition(":")[2] or 0)
    return options


def main() -> None:
    options = parse()
    try:
        device: Any = tr.use_backend(os.environ.get("TINYRNN_GPU", "cupy")).backend
    except tr.errors.BackendError as error:
        sys.exit(f"no GPU to measure: {error}")
    cupy, torch = device.cupy, cuda_pytorch()
    device.enter()
    warnings.filterwarnings("error", "capture: the calls are repeated one by one")  # what is measured is a graph
    tests, passed = run_tests() if options.only != "timings" else ("", True)
    set_tf32(cupy, torch, options.tf32)
    table = list(rows(options, cupy, torch)) if options.only != "tests" else []
    text = section(options, cupy, torch, tests, table)
    print(text)
    before = options.out.read_text(encoding="utf-8") if options.out.exists() else "# On a GPU\n"
    options.out.write_text(f"{before}\n{text}", encoding="utf-8")
    if not passed or any("does not hold" in cell for row in table for cell in row):
        sys.exit(1)


if __name__ == "__main__":
    main()
