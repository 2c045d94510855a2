"""Where these tests run: on a GPU, and without one on what stands in for it.

    pytest -m gpu                                   # needs a CUDA device and CuPy
    TINYRNN_GPU=cupy:1 pytest -m gpu tests/gpu      # on another device
    pytest tests/gpu                                # the strict backend, and the CuPy backend on a CuPy of the host

A test asks for the fixture `device`, `cupy_device` or `gpu`.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator

import pytest

import tinyrnn as tr
from tests.gpu.host_cupy import COMPILER, HostCuPy, memory
from tinyrnn import backends

GPU = pytest.param(os.environ.get("TINYRNN_GPU", "cupy"), marks=pytest.mark.gpu)


@pytest.fixture(params=["strict", "host-cupy", GPU])
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[backends.Backend]:
    """Every backend that is not the host, or stands for one."""
    yield from _backend(request.param, monkeypatch)


@pytest.fixture(params=["host-cupy", GPU])
def cupy_device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[backends.Backend]:
    """The CuPy backend."""
    yield from _backend(request.param, monkeypatch)


@pytest.fixture(params=[GPU])
def gpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[backends.Backend]:
    """The CuPy backend on a GPU."""
    yield from _backend(request.param, monkeypatch)


def _backend(name: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[backends.Backend]:
    if name == "host-cupy":
        if COMPILER is None:
            pytest.skip("no C++ compiler for the kernels of the stand-in; install g++")
        backend: backends.Backend = HostCuPy()
        monkeypatch.setitem(backends._loaded, backend.name, backend)  # for `of`, and for this test alone
    else:
        try:
            with warnings.catch_warnings():  # CuPy's, at its import
                warnings.simplefilter("ignore")
                backend = backends.get(name)
        except tr.errors.BackendError as error:
            pytest.skip(f"{error}; where there is a GPU, run these with: pytest -m gpu")
    if name != "strict":
        monkeypatch.setattr(backend, "checks_at_once", False)
        monkeypatch.setattr(backend, "deterministic", False)
    yield backend
    memory.device = 0
