"""Every test that asks for `backend` runs on NumPy, on the strict backend and, where there is one, on a GPU."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

# The tests' matrices are tiny: one thread is as fast as several, and does not wait for a core that is busy elsewhere.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import tinyrnn as tr
from tests.strict_backend import StrictBackend
from tinyrnn import backends

backends.register("strict", StrictBackend)


def _cupy_or_reason() -> str:
    try:
        backends.get("cupy")
    except tr.errors.BackendError as error:
        return str(error)
    return ""


@pytest.fixture(params=["numpy", "strict", pytest.param("cupy", marks=pytest.mark.gpu)])
def backend(request: pytest.FixtureRequest) -> Iterator[backends.Backend]:
    """The backend that new tensors go to while the test runs."""
    if request.param == "cupy" and (reason := _cupy_or_reason()):
        pytest.skip(f"{reason}; run these with: pytest -m gpu")
    with tr.use_backend(request.param) as current:
        if request.param == "cupy":
            current.checks_at_once = True  # these tests expect an index out of range to be told where it is used
        yield current


@pytest.fixture(autouse=True)
def _seed() -> None:
    tr.manual_seed(0)
