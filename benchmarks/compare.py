"""Measure tinyrnn beside every peer that is installed, on the same work, and print tables of ratios.

    python benchmarks/compare.py [--only training] [--cells lstm] [--sizes char-rnn h256] [--rounds 5] [--json FILE]

Each peer has a process of its own, and only one works at a time: they take turns, round after round, so that a slow
moment of the machine meets all of them. A ratio is time over time, or memory over memory: below 1, tinyrnn takes less.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from tables import Case, Results, bars, report, table
from workers import HERE, PEERS, SETTLE, SUBJECTS, PeerError, Worker, environment, working

CELLS = ("lstm", "gru", "rnn")
SIZES = {  # B, T, H, L
    "small": (16, 32, 64, 1),
    "char-rnn": (50, 50, 128, 2),
    "h256": (64, 128, 256, 1),
    "h512": (64, 128, 512, 2),
}
LARGE = ("h256", "h512")  # not for the slow ones, unless they are asked for by name
WRITING = (4, 8, 128, 2)  # the model that writes; its B and T are for the check of the losses only
TINY = (2, 4, 8, 1)
EXAMPLE = HERE.parent / "examples" / "char_rnn.py"


# ---------------------------------------------------------------- what is measured


def training(options: argparse.Namespace, done: dict[str, Case]) -> None:
    """Measure the seconds of a training step."""
    for cell in options.cells:
        for size in options.sizes:
            names = [name for name in options.peers if PEERS[name].trains]
            if options.all_peers and size in LARGE:
                names = [name for name in names if not PEERS[name].slow]
            progress(f"training: {cell}, {size}")
            with working(names, options.threads) as workers:
                see_same_work(workers, cell, SIZES[size])
                turns = {}
                for name, worker in workers.items():
                    count = options.steps or steps_of_half_a_second(*worker.seconds("steps", count=1))
                    turns[name] = partial(worker.seconds, "steps", count=count)
                done[f"{cell}, {size}"] = take_turns(turns, options.rounds)
                note_spinning(workers, options.threads)


def steps_of_half_a_second(step: float) -> int:
    """Return how many steps make a turn."""
    return min(50, max(2, round(0.5 / step)))


def generation(options: argparse.Namespace, done: dict[str, Case]) -> None:
    """Measure the seconds of a character, in the library's loop and as the example's command tells them.

    The command does not count its start-up; PyTorch's loop writes as much beside it.
    """
    names = [name for name in options.peers if PEERS[name].writes]
    few, many = options.characters, 10 * options.characters
    for cell in options.cells:
        progress(f"generation: {cell}")
        with working(names, options.threads) as workers, tempfile.TemporaryDirectory() as folder:
            see_same_work(workers, cell, WRITING)
            train_example(Path(folder), cell, options.threads)
            loops = {name: partial(worker.seconds, "generate", length=few) for name, worker in workers.items()}
            beside = {name: partial(worker.seconds, "generate", length=many) for name, worker in workers.items()}
            commands = {
                name: partial(example_seconds, folder, many, environment(options.threads, **PEERS[name].environment))
                for name in workers
                if name in SUBJECTS
            }
            done[f"{cell}, library"] = take_turns(loops, options.rounds)
            done[f"{cell}, example"] = take_turns(beside | commands, options.rounds)


def train_example(folder: Path, cell: str, threads: int) -> None:
    """Let the example learn for a few steps, from a text with as many characters as the peers' models know."""
    letters = [chr(code) for code in range(ord("0"), ord("0") + 65)]
    (folder / "text.txt").write_text("".join(letters[k % 65] + letters[k * k % 65] for k in range(50_000)))
    sizes = f"--cell {cell} --hidden {WRITING[2]} --layers {WRITING[3]} --steps 5".split()
    run_example(["train", *sizes, "--text", str(folder / "text.txt"), "--out", str(folder)], environment(threads))


def example_seconds(folder: str, length: int, env: dict[str, str]) -> list[float]:
    """Return the seconds of a character that the example's command says it took."""
    said = run_example(["sample", "--checkpoint", folder, "--length", str(length)], env)
    found = re.search(r"characters in ([\d.]+) s", said)
    if not found:
        raise PeerError(f"examples/char_rnn.py did not say how long it took, but: {said}")
    return [float(found[1]) / length]


def run_example(words: list[str], env: dict[str, str]) -> str:
    """Run the example and return what it says on stderr."""
    ran = subprocess.run(
        [sys.executable, str(EXAMPLE), *words],
        env=env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        check=False,
    )
    if ran.returncode:
        raise PeerError(f"examples/char_rnn.py {words[0]}: {ran.stderr}")
    return ran.stderr


def growth(options: argparse.Namespace, done: dict[str, Case]) -> None:
    """Measure the seconds of a time step in sequences of many lengths, by growth.py."""
    cell = options.cells[0]
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder, "growth.json")
        words = ["--cell", cell, "--repeat", str(options.rounds), "--json", str(raw)]
        command = [sys.executable, str(HERE / "growth.py"), *words]
        subprocess.run(command, env=environment(options.threads), stdout=subprocess.DEVNULL, check=True)
        for T, runs in json.loads(raw.read_text()).items():
            done[f"{cell}, T={T}"] = {"tinyrnn": [[seconds / int(T)] for seconds in runs]}


def memory(options: argparse.Namespace, done: dict[str, Case]) -> None:
    """Measure the most bytes resident in training, beyond those after imports and a tiny model, in fresh processes."""
    size, cell = max(options.sizes, key=list(SIZES).index), options.cells[0]
    names = [name for name in options.peers if name in (*SUBJECTS, "pytorch")]
    turns = {name: partial(peak_bytes, name, cell, SIZES[size], options.threads) for name in names}
    done[f"{cell}, {size}"] = take_turns(turns, min(options.rounds, 3))


def peak_bytes(name: str, cell: str, size: tuple[int, ...], threads: int) -> list[float]:
    """Return what a few steps of a model add to the peak of a process that has done steps of a tiny one."""
    with working([name], threads) as workers:
        before = workers[name].ask("setup", cell=cell, size=TINY)["peak_bytes"]
        workers[name].ask("setup", cell=cell, size=size)
        return [workers[name].ask("steps", count=2)["peak_bytes"] - before]


PARTS = {part.__name__: part for part in (training, generation, growth, memory)}


# ---------------------------------------------------------------- in turn, and fairly


def take_turns(turns: Mapping[str, Callable[[], list[float]]], rounds: int) -> Case:
    """Go round the peers, a turn each, several times."""
    case: Case = {name: [] for name in turns}
    for _ in range(rounds):
        for name, turn in turns.items():
            case[name].append(turn())
    return case


def see_same_work(workers: dict[str, Worker], cell: str, size: tuple[int, ...]) -> None:
    """Let each peer do two steps on one batch, and see that the losses are the others', as far as it has any.

    Raises: PeerError if the first losses differ by 1e-4, when the models are not the same; or what the first step takes
        off the loss by more than a peer's slack, when the gradients or the updates are not.
    """
    replies = {name: worker.ask("setup", cell=cell, size=size)["losses"] for name, worker in workers.items()}
    losses = {name: both for name, both in replies.items() if None not in both}
    first, second = losses[min(losses, key=lambda name: PEERS[name].slack)] if losses else (1.0, 0.0)
    for name, (before, after) in losses.items():
        taken = (before - after) / (first - second)
        if not (abs(before - first) < 1e-4 * first and abs(taken - 1) < PEERS[name].slack):
            raise PeerError(f"not the same work: {cell}, (B, T, H, L) = {size}, losses of two steps: {losses}")


def progress(what: str) -> None:
    """Tell whoever waits where it stands."""
    print(f"{datetime.datetime.now():%H:%M:%S} {what}", file=sys.stderr)


def note_spinning(workers: dict[str, Worker], threads: int) -> None:
    """Tell who used the processor while others were measured."""
    for worker in workers.values():
        if worker.burnt > SETTLE * threads:
            print(f"note: {worker.peer.label} used {worker.burnt:.1f} s of a core while it waited", file=sys.stderr)


# ---------------------------------------------------------------- the command


def main() -> None:
    options = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # an exception, so that the workers are ended
    about, results = [], Results()
    try:
        about = describe(options)
        print("\n".join(about), flush=True)
        for part in options.only:
            results[part] = {}
            PARTS[part](options, results[part])
            print("\n".join(report(part, results[part])), flush=True)
        held = list(bars(results))
        if held:
            print(table("Bars, for the median", ["", "at most", "measured", "holds"], held))
    except KeyboardInterrupt:
        sys.exit("stopped")
    except PeerError as error:
        sys.exit(f"error: {error}")
    finally:
        if options.json:
            options.json.write_text(json.dumps({"about": about, "results": results}, indent=1), encoding="utf-8")


def describe(options: argparse.Namespace) -> list[str]:
    """Return lines that say when, where and what is compared; drop peers that are not installed from the options."""
    with working(options.peers, options.threads) as workers:
        said = {name: worker.hello for name, worker in workers.items()}
    options.peers = [name for name in said if "missing" not in said[name]]
    rows = [[PEERS[name].label, said[name]["version"], ", ".join(said[name]["uses"])] for name in options.peers]
    missing = [
        f"\n{PEERS[name].label}: not installed ({said[name]['missing']})" for name in said.keys() - options.peers
    ]
    return [
        f"### {datetime.date.today()}, {processor()}, {os.cpu_count()} cores\n",
        f"`python {' '.join(sys.argv)}`, Python {platform.python_version()}. Threads of each peer: {options.threads}.",
        "The work is the same: the first losses agree to 1e-4, what a step takes off them to 0.5 %, PyTorch's to 5 %.",
        table("Peers", ["", "version", "with, as far as it shows"], rows),
        *sorted(missing),
    ]


def processor() -> str:
    """Return the processor's name, as far as the system tells it."""
    try:
        told = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
    except OSError:
        told = None
    return told[1] if told else platform.processor() or platform.machine()


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--only", nargs="+", choices=PARTS, default=list(PARTS), help="(default: all four)")
    add("--cells", nargs="+", choices=CELLS, default=list(CELLS), help="(default: all three)")
    add("--sizes", nargs="+", choices=SIZES, default=list(SIZES), help="(default: all four)")
    add("--peers", nargs="+", choices=PEERS, help="(default: all, autograd and MyGrad not for the large sizes)")
    add("--rounds", type=int, default=5, help="turns of each peer (default: 5)")
    add("--steps", type=int, help="training steps of a turn (default: those of half a second, from 2 to 50)")
    add("--characters", type=int, default=2000, help="written in a turn; ten times as many by the example (2000)")
    add("--threads", type=int, default=os.cpu_count() or 1, help="of each peer (default: all cores)")
    add("--json", type=Path, metavar="FILE", help="keep what was measured, in seconds and bytes")
    options = parser.parse_args()
    options.all_peers = options.peers is None
    options.peers = [name for name in PEERS if options.all_peers or name in options.peers]
    return options


if __name__ == "__main__":
    main()
