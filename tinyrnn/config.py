"""What tinyrnn runs on, and with how many threads."""

from __future__ import annotations

import importlib.util
import os
import platform
import sys
from pathlib import Path
from typing import Any

from tinyrnn import backends
from tinyrnn.errors import BackendError

# ---------------------------------------------------------------- threads


def set_num_threads(n: int) -> None:
    """Compute matrix products with `n` threads: those of the BLAS library that NumPy uses, in the whole process.

    Numba gets as many, up to the number that it started with, if it has been imported by then. More than the machine
    has cores is allowed, and slower. A library has a ceiling of its own: `get_num_threads` says what came of it. Call
    it from the main thread: once one thread has set the number, OpenBLAS does not listen to another.

    Args: n, an int of 1 or more.
    Raises: ValueError for any other n; BackendError if NumPy's BLAS is one whose threads nobody can set from here, such
        as Accelerate.

    >>> import tinyrnn as tr
    >>> before = tr.get_num_threads()
    >>> tr.set_num_threads(1)  # for small matrices, or several programs at once
    >>> tr.get_num_threads()
    1
    >>> tr.set_num_threads(before)
    """
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise ValueError(f"set_num_threads: n is {n!r}; expected an int of 1 or more, such as os.cpu_count()")
    for library in _libraries():
        library.set_num_threads(n)
    numba = sys.modules.get("numba")
    if numba is not None:
        numba.set_num_threads(min(n, numba.config.NUMBA_NUM_THREADS))


def get_num_threads() -> int:
    """Return the number of threads that NumPy's BLAS library computes matrix products with.

    Raises: BackendError if it is one that does not tell, such as Accelerate.

    >>> import tinyrnn as tr
    >>> tr.get_num_threads() >= 1
    True
    """
    return max(library.num_threads for library in _libraries())


def _libraries() -> list[Any]:
    """Return what controls the BLAS that NumPy uses: the one in its wheel, or, without that, each that is loaded."""
    from threadpoolctl import ThreadpoolController  # looks through all loaded libraries: only when asked

    loaded = ThreadpoolController().select(user_api="blas").lib_controllers
    own = [library for library in loaded if any(part.startswith("numpy") for part in Path(library.filepath).parts)]
    if not loaded:
        raise BackendError(
            "threads: NumPy's BLAS is not OpenBLAS, MKL or BLIS, and others let nobody ask or set their threads; "
            "for Accelerate set the environment variable VECLIB_MAXIMUM_THREADS before Python starts"
        )
    return own or loaded


# ---------------------------------------------------------------- what there is


class Config:
    """What tinyrnn runs on: shown at a prompt, by print, and by name in `facts`; `show_config` makes one."""

    def __init__(self, facts: dict[str, str]) -> None:
        self.facts = facts

    def __repr__(self) -> str:
        width = max(map(len, self.facts))
        return "\n".join(f"{name:{width}}  {fact}" for name, fact in self.facts.items())


def show_config() -> Config:
    """Return what tinyrnn runs on: versions, processor, BLAS and its threads, backend, environment variables.

    At a prompt or in a notebook `tr.show_config()` shows it, in a script `print(tr.show_config())`. It belongs into
    every report of a bug or of a time. A line "advice" is there if a setting would make matrix products faster.

    >>> import tinyrnn as tr
    >>> config = tr.show_config()
    >>> config.facts["tinyrnn"] == tr.__version__
    True
    """
    facts = {
        "tinyrnn": sys.modules["tinyrnn"].__version__,
        "backend": _backend(),
        "Python": platform.python_version(),
        "NumPy": _version("numpy"),
        "Numba": _numba(),
        "CuPy": _version("cupy-cuda12x", "cupy-cuda13x", "cupy") or "not installed: pip install 'tinyrnn[cuda12]'",
        "platform": platform.platform(),
        "processor": _processor(_cpuinfo()),
    }
    try:
        libraries = [library.info() for library in _libraries()]
    except BackendError:
        libraries = []
    facts["BLAS"] = "; ".join(map(_blas, libraries)) or "not OpenBLAS, MKL or BLIS: its threads are not known"
    settings = [f"{name}={value}" for name, value in sorted(os.environ.items()) if _ours(name)]
    facts["environment"] = ", ".join(settings) or "no setting of tinyrnn or BLAS"
    coretype = os.environ.get("OPENBLAS_CORETYPE")
    advice = [told for info in libraries if (told := advise(str(info.get("architecture")), _cpuinfo(), coretype))]
    return Config({**facts, **({"advice": advice[0]} if advice else {})})


def _version(*names: str) -> str:
    """Return the version of the first package that is installed, "" if none is."""
    from importlib import metadata  # costs 20 ms, which most programs need not pay

    for name in names:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return ""


def _backend() -> str:
    try:
        return backends.current().name
    except BackendError as error:  # what does not work is what a report is about
        return f"none: {error}"


def _numba() -> str:
    if importlib.util.find_spec("numba") is None:
        return "not installed; fused kernels: numpy (pip install 'tinyrnn[fast]' makes them faster)"
    off = os.environ.get("TINYRNN_FAST") == "0"
    return f"{_version('numba')}; fused kernels: {'numpy (TINYRNN_FAST=0 is set)' if off else 'numba'}"


def _blas(info: dict[str, Any]) -> str:
    """Describe a library: `OpenBLAS 0.3.31, Haswell kernels, 2 threads`."""
    name = {"openblas": "OpenBLAS", "mkl": "MKL", "blis": "BLIS"}.get(info["internal_api"], info["internal_api"])
    kernels = f", {info['architecture']} kernels" if info.get("architecture") else ""
    threads = info["num_threads"]
    return f"{name} {info['version'] or ''}{kernels}, {threads} thread{'' if threads == 1 else 's'}"


def _ours(variable: str) -> bool:
    """Tell whether an environment variable is a setting of ours, or one that decides how fast BLAS is."""
    return variable.startswith(("TINYRNN_", "OPENBLAS_")) or variable.endswith("_NUM_THREADS")


# ---------------------------------------------------------------- the processor


def _cpuinfo() -> str:
    """Return what Linux says of the processor; "" elsewhere."""
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _processor(cpuinfo: str) -> str:
    name = _field(cpuinfo, "model name") or platform.processor() or platform.machine()
    usable = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()
    here = f" (this process may use {usable})" if usable != os.cpu_count() else ""
    return f"{name}, {os.cpu_count()} cores{here}{', AVX-512' if has_avx512(cpuinfo) else ''}"


def _field(cpuinfo: str, name: str) -> str:
    """Return what stands behind `name :` where it comes first, "" if it does not."""
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""


def has_avx512(cpuinfo: str) -> bool:
    """Tell whether a processor has the AVX-512 instructions that OpenBLAS's SkylakeX kernels need.

    Args: cpuinfo, the text of Linux's /proc/cpuinfo.
    """
    return {"avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl"} <= set(_field(cpuinfo, "flags").split())


def advise(architecture: str, cpuinfo: str, coretype: str | None) -> str:
    """Return what to do where OpenBLAS computes with kernels for a lesser processor, "" where there is nothing.

    Args: architecture, that of the kernels; cpuinfo, the text of Linux's /proc/cpuinfo; coretype, the value of the
        environment variable OPENBLAS_CORETYPE, None if it is not set.
    """
    if architecture.lower() not in ("haswell", "zen") or not has_avx512(cpuinfo):
        return ""
    slow = f"OpenBLAS uses {architecture} kernels (AVX2), up to 2 times slower than AVX-512, which this processor has"
    if coretype:
        return f"{slow}: OPENBLAS_CORETYPE={coretype} is set; unset it, or set OPENBLAS_CORETYPE=SKYLAKEX"
    return f"{slow}: set OPENBLAS_CORETYPE=SKYLAKEX"
