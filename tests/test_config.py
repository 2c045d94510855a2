"""Threads of the BLAS, and what tinyrnn says that it runs on."""

import importlib.metadata
import os
import subprocess
import sys
import types

import pytest
from threadpoolctl import ThreadpoolController

import tinyrnn as tr
from tinyrnn import config
from tinyrnn.config import advise, get_num_threads, has_avx512, set_num_threads, show_config
from tinyrnn.errors import BackendError


class Library:
    """What threadpoolctl says of a BLAS."""

    def __init__(self, filepath, n=2, ceiling=8, architecture="Haswell"):
        self.filepath, self.num_threads, self.ceiling, self.architecture = filepath, n, ceiling, architecture

    def set_num_threads(self, n):
        self.num_threads = min(n, self.ceiling)

    def info(self):
        facts = {"internal_api": "openblas", "version": "0.3.30", "num_threads": self.num_threads}
        return {**facts, "filepath": self.filepath, "architecture": self.architecture}


@pytest.fixture
def loaded(monkeypatch):
    """Make it look as if these libraries had been loaded: `loaded(library, …)`."""

    def load(*libraries):
        selected = types.SimpleNamespace(lib_controllers=list(libraries))
        monkeypatch.setattr(ThreadpoolController, "select", lambda self, user_api: selected)

    return load


# ---------------------------------------------------------------- threads


def test_the_number_that_was_set_is_the_number_there_is():
    before = get_num_threads()
    try:
        for n in (2, 1):
            set_num_threads(n)
            assert get_num_threads() == n
            assert f"{n} thread" in show_config().facts["BLAS"]
    finally:
        set_num_threads(before)
    assert get_num_threads() == before


def test_it_is_numpy_s_own_blas_that_is_set(loaded):
    numpy_s, scipy_s = Library("/env/numpy.libs/libscipy_openblas64_.so"), Library("/env/scipy.libs/libopenblas.so")
    loaded(scipy_s, numpy_s)
    set_num_threads(5)
    assert (numpy_s.num_threads, scipy_s.num_threads, get_num_threads()) == (5, 2, 5)


def test_without_one_of_its_own_numpy_uses_what_is_loaded(loaded):
    library = Library("/usr/lib/libopenblas.so.0")
    loaded(library)
    set_num_threads(5)
    assert (library.num_threads, get_num_threads()) == (5, 5)


def test_more_threads_than_the_library_allows_are_its_ceiling(loaded):
    loaded(Library("/env/numpy.libs/libopenblas.so", ceiling=8))
    set_num_threads(1000)
    assert get_num_threads() == 8


@pytest.mark.parametrize("n", [0, -1, 1.0, "2", True, None])
def test_a_number_that_is_none_is_refused(loaded, n):
    library = Library("/env/numpy.libs/libopenblas.so")
    loaded(library)
    with pytest.raises(ValueError, match=r"set_num_threads: n is .*; expected an int of 1 or more"):
        set_num_threads(n)
    assert library.num_threads == 2


def test_a_blas_that_nobody_can_set_is_told(loaded):
    loaded()
    for ask in (get_num_threads, lambda: set_num_threads(1)):
        with pytest.raises(BackendError, match="VECLIB_MAXIMUM_THREADS"):
            ask()
    assert "not known" in show_config().facts["BLAS"]


def test_numba_gets_as_many_as_it_can_take(loaded, monkeypatch):
    loaded(Library("/env/numpy.libs/libopenblas.so"))
    given = []
    limits = types.SimpleNamespace(NUMBA_NUM_THREADS=4)
    monkeypatch.setitem(sys.modules, "numba", types.SimpleNamespace(config=limits, set_num_threads=given.append))
    for n in (3, 7):
        set_num_threads(n)
    assert given == [3, 4]


def test_nothing_is_imported_before_it_is_needed():
    code = (
        "import sys; from tinyrnn.config import set_num_threads, show_config; before = set(sys.modules); "
        "set_num_threads(1); show_config(); "
        "print('threadpoolctl' in before, *{'threadpoolctl', 'numba', 'cupy'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["False", "threadpoolctl"]


# ---------------------------------------------------------------- what there is


def test_it_shows_what_there_is(backend, monkeypatch, capsys):
    monkeypatch.setenv("TINYRNN_SOMETHING", "set")
    monkeypatch.setenv("SECRET_TOKEN", "hidden")
    shown = show_config()
    assert shown.facts["tinyrnn"] == tr.__version__
    assert shown.facts["backend"] == backend.name
    assert shown.facts["NumPy"] == tr.backends.get("numpy").__version__
    assert shown.facts["Python"] == ".".join(map(str, sys.version_info[:3]))
    assert str(os.cpu_count()) in shown.facts["processor"]
    assert "TINYRNN_SOMETHING=set" in shown.facts["environment"]
    assert "hidden" not in repr(shown)
    print(shown)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(shown.facts)
    assert lines[0] == f"tinyrnn      {tr.__version__}"


def test_it_says_what_blas_there_is(loaded):
    loaded(Library("/env/numpy.libs/libopenblas.so", n=1, architecture="SkylakeX"))
    assert show_config().facts["BLAS"] == "OpenBLAS 0.3.30, SkylakeX kernels, 1 thread"
    loaded(Library("/a/numpy.libs/libopenblas.so"), Library("/b/numpy.libs/libopenblas.so"))
    assert show_config().facts["BLAS"].count("Haswell kernels, 2 threads") == 2


def test_no_setting_is_said_too(monkeypatch):
    for name in list(os.environ):
        if name.startswith(("TINYRNN_", "OPENBLAS_")) or name.endswith("_NUM_THREADS"):
            monkeypatch.delenv(name)
    assert show_config().facts["environment"] == "no setting of tinyrnn or BLAS"


def test_a_backend_that_does_not_work_is_shown_with_its_reason(monkeypatch):
    monkeypatch.setenv("TINYRNN_BACKEND", "cuppy")
    assert show_config().facts["backend"].startswith("none: backend 'cuppy' is unknown")


def test_what_is_not_installed_is_shown_with_its_extra(monkeypatch):
    def version(name):
        if name in ("numba", "cupy", "cupy-cuda12x", "cupy-cuda13x"):
            raise importlib.metadata.PackageNotFoundError(name)
        return "1.2.3"

    monkeypatch.setattr(importlib.metadata, "version", version)
    monkeypatch.setattr(config.importlib.util, "find_spec", lambda name: None)
    facts = show_config().facts
    assert "tinyrnn[cuda12]" in facts["CuPy"]
    assert "fused kernels: numpy" in facts["Numba"]
    assert "tinyrnn[fast]" in facts["Numba"]


def test_what_is_installed_is_shown_with_its_version(monkeypatch):
    monkeypatch.setattr(importlib.metadata, "version", lambda name: f"{name}-9")
    monkeypatch.setattr(config.importlib.util, "find_spec", lambda name: name)
    monkeypatch.delenv("TINYRNN_FAST", raising=False)
    facts = show_config().facts
    assert facts["Numba"] == "numba-9; fused kernels: numba"
    assert facts["CuPy"].endswith("-9")
    monkeypatch.setenv("TINYRNN_FAST", "0")
    assert show_config().facts["Numba"] == "numba-9; fused kernels: numpy (TINYRNN_FAST=0 is set)"


# ---------------------------------------------------------------- the processor

ZEN5 = """\
processor	: 0
vendor_id	: AuthenticAMD
model name	: AMD EPYC 9575F 64-Core Processor
flags		: fpu sse4_2 avx avx2 fma avx512f avx512dq avx512ifma avx512cd avx512bw avx512vl avx512_bf16
bugs		: sysret_ss_attrs

processor	: 1
model name	: AMD EPYC 9575F 64-Core Processor
flags		: fpu sse4_2 avx avx2 fma avx512f avx512dq avx512ifma avx512cd avx512bw avx512vl avx512_bf16
"""
ZEN3 = """\
model name	: AMD EPYC 7763
flags		: fpu sse4_2 avx avx2 fma
bugs		: avx512f avx512dq avx512cd avx512bw avx512vl
"""
KNIGHTS = "flags\t\t: avx2 avx512f avx512pf avx512er avx512cd\n"  # AVX-512, but not all of it
ARM = "processor\t: 0\nFeatures\t: fp asimd sve sve2\nCPU part\t: 0xd4f\n"


@pytest.mark.parametrize(
    ("cpuinfo", "expected"),
    [(ZEN5, True), (ZEN3, False), (KNIGHTS, False), (ARM, False), ("", False), ("flags", False)],
)
def test_avx512_is_read_from_the_flags(cpuinfo, expected):
    assert has_avx512(cpuinfo) is expected


@pytest.mark.parametrize("missing", ["avx512f", "avx512dq", "avx512bw", "avx512vl", "avx512cd"])
def test_every_part_of_avx512_is_needed(missing):
    assert not has_avx512(ZEN5.replace(f" {missing} ", " "))


@pytest.mark.parametrize("architecture", ["Haswell", "Zen", "ZEN"])
def test_lesser_kernels_on_a_processor_with_avx512_are_told_in_one_line(architecture):
    told = advise(architecture, ZEN5, None)
    assert architecture in told
    assert told.endswith(": set OPENBLAS_CORETYPE=SKYLAKEX")
    assert "\n" not in told


def test_a_variable_that_asks_for_lesser_kernels_is_named():
    told = advise("Haswell", ZEN5, "Haswell")
    assert told.endswith("OPENBLAS_CORETYPE=Haswell is set; unset it, or set OPENBLAS_CORETYPE=SKYLAKEX")


@pytest.mark.parametrize(
    ("architecture", "cpuinfo"),
    [("SkylakeX", ZEN5), ("Cooperlake", ZEN5), ("None", ZEN5), ("Haswell", ZEN3), ("Zen", ZEN3), ("Haswell", "")],
)
def test_there_is_no_advice_where_nothing_is_lost(architecture, cpuinfo):
    assert advise(architecture, cpuinfo, None) == advise(architecture, cpuinfo, "Haswell") == ""


def test_the_advice_is_a_line_of_what_is_shown(loaded, monkeypatch):
    monkeypatch.setattr(config, "_cpuinfo", lambda: ZEN5)
    monkeypatch.delenv("OPENBLAS_CORETYPE", raising=False)
    loaded(Library("/env/numpy.libs/libopenblas.so", architecture="Haswell"))
    facts = show_config().facts
    assert facts["advice"] == advise("Haswell", ZEN5, None)
    assert facts["processor"].startswith("AMD EPYC 9575F 64-Core Processor, ")
    assert facts["processor"].endswith("AVX-512")
    loaded(Library("/env/numpy.libs/libopenblas.so", architecture="SkylakeX"))
    assert "advice" not in show_config().facts


def test_a_processor_that_linux_does_not_describe_is_named_anyway(monkeypatch):
    monkeypatch.setattr(config, "_cpuinfo", lambda: ARM)
    monkeypatch.setattr(config.platform, "processor", lambda: "")
    monkeypatch.setattr(config.platform, "machine", lambda: "aarch64")
    assert show_config().facts["processor"].startswith("aarch64, ")
