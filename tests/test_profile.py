"""tr.profile: what is measured is put where it belongs. The tests turn the clock themselves: every figure is exact."""

import asyncio
import gc
import importlib
import threading
import weakref
from typing import NamedTuple

import numpy as np
import pytest

import tinyrnn as tr
from tests.strict_backend import StrictBackend
from tinyrnn import backends, nn, optim
from tinyrnn.autograd import current_mode, current_scope
from tinyrnn.profile import Row, profile

module = importlib.import_module("tinyrnn.profile")  # the file: `tinyrnn.profile` may be the function


class Clock:
    """Time that stands still until somebody spends it."""

    now = 0.0

    def __call__(self):
        return self.now

    def spend(self, seconds):
        self.now += seconds


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(module, "perf_counter", clock)
    return clock


@pytest.fixture
def slow(clock):
    """An operation that takes 3 s, and 5 s for its rule."""

    def forward(xp, x):
        clock.spend(3)
        return x * 2

    def rule(ops, gy, y, x):
        clock.spend(5)
        return gy * 2

    return tr.primitive("slow", forward=forward, vjp=(rule,), saves=("",))


def leaf(*shape):
    return tr.randn(*shape, requires_grad=True)


def cost(report, direction, op, layer="(no module)"):
    """Return (calls, seconds, bytes) of one row."""
    (row,) = [row for row in report.rows if row[:3] == (direction, op, layer)]
    return row[3:]


mark = tr.primitive("mark", forward=lambda xp, x: x * 0.5, vjp=(lambda ops, gy, y, x: gy * 0.5,), saves=("",))


class State(NamedTuple):
    h: tr.Tensor


class Cell(nn.Cell):
    gates = ("h",)

    def step(self, z, state):
        return State(tr.apply(mark, z + state.h @ self.W_h))


class Block(nn.Module):
    """A module with an operation of its own, and layers below."""

    def __init__(self):
        self.recurrent = nn.Recurrent(Cell, 3, 4, num_layers=2)
        self.head = nn.Sequential(nn.Linear(4, 2), tr.tanh)

    def forward(self, x):
        out, _ = self.recurrent(x)
        return tr.relu(self.head(out))


# ---------------------------------------------------------------- time


def test_time_goes_to_the_operation_its_rule_and_what_is_outside(backend, clock, slow):
    x = leaf(2)
    with profile() as report:
        clock.spend(7)
        y = tr.apply(slow, tr.apply(slow, x)).sum()
        clock.spend(11)
        y.backward()
    clock.spend(13)  # no part of the block
    assert cost(report, "forward", "slow")[:2] == (2, 6)
    assert cost(report, "backward", "slow")[:2] == (2, 10)
    assert cost(report, "forward", "sum")[:2] == cost(report, "backward", "sum")[:2] == (1, 0)
    assert (report.seconds, report.outside) == (34, 18)


def test_adding_up_gradients_is_a_direction_of_its_own(backend, clock, monkeypatch):
    combine = importlib.import_module("tinyrnn.autograd").combine

    def slow_combine(*args):
        clock.spend(2)
        return combine(*args)

    monkeypatch.setattr("tinyrnn.autograd.combine", slow_combine)
    x = leaf(2)
    with profile() as report:
        (tr.exp(x) * x).sum().backward()
    sums = {row.op: (row.calls, row.seconds) for row in report.rows if row.direction == "sum"}
    assert sums == {"sum": (1, 2), "multiply": (1, 2), "exp": (1, 2), "(weights)": (1, 2)}
    assert cost(report, "sum", "(weights)", "(weights)")[1] == 2
    assert report.outside == 0


def test_the_profile_does_not_count_itself(backend, clock, slow, monkeypatch):
    of = backends.of

    def slow_of(array):
        clock.spend(100)
        return of(array)

    x = leaf(2)
    with profile() as report:
        with monkeypatch.context() as patch:
            patch.setattr(module.backends, "of", slow_of)
            tr.apply(slow, x)
        clock.spend(2)
    assert clock.now >= 105
    assert cost(report, "forward", "slow")[:2] == (1, 3)
    assert (report.seconds, report.outside) == (5, 2)


def test_what_an_operation_does_inside_is_its_own(backend, clock, slow):
    def forward(xp, x):
        clock.spend(1)
        return tr.apply(slow, tr.Tensor(x, xp)).array

    outer = tr.primitive("outer", forward=forward)
    with profile() as report:
        tr.apply(outer, tr.ones(2))
    assert [row[:5] for row in report.rows] == [("forward", "outer", "(no module)", 1, 4)]


def test_a_recorded_backward_pass_is_not_counted_twice(backend, clock, slow):
    def rule(ops, gy, y, x):
        clock.spend(5)
        return ops.slow(gy)  # under create_graph an operation like any other, that takes 3 s

    twice = tr.primitive("twice", forward=lambda xp, x: x + x, vjp=(rule,), saves=("",))
    x = leaf(2)
    y = tr.apply(twice, x).sum()
    with profile() as report:
        tr.grad(y, x, create_graph=True)
    assert cost(report, "backward", "twice") == (1, 8, 2 * 4)
    assert not [row for row in report.rows if row.op == "slow"]
    assert report.outside == 0


class Later(StrictBackend):
    """A device that computes when it is waited for: each operation on it takes 4 s, which nobody sees before."""

    def __init__(self, clock):
        super().__init__("device2")
        self.name, self.clock, self.pending = "later", clock, 0

    def work(self):
        self.pending += 4

    def synchronize(self):
        self.clock.spend(self.pending)
        self.pending = 0


@pytest.fixture
def later(clock, monkeypatch):
    device = Later(clock)
    monkeypatch.setitem(backends._loaded, "later", device)
    with tr.use_backend(device):
        yield device


def test_a_device_that_computes_later_is_waited_for(clock, later):
    def forward(xp, x):
        xp.work()
        clock.spend(1)
        return x * 2

    op = tr.primitive("launch", forward=forward)
    x = tr.ones(3)
    with profile() as report:
        y = tr.apply(op, x)
        later.work()  # by something that is no operation
        tr.apply(op, y)
        later.work()
    assert cost(report, "forward", "launch")[:2] == (2, 10)
    assert (report.seconds, report.outside) == (18, 8)
    assert later.pending == 0


# ---------------------------------------------------------------- where


def test_layers_are_the_paths_of_modules_without_the_time_step(backend):
    model, x = Block(), tr.randn(5, 2, 3)
    with profile() as report:
        loss = (model(x) ** 2).sum()
        loss.backward()
    layers = {row.layer for row in report.rows}
    cells = {"Block.recurrent.cells.0", "Block.recurrent.cells.1"}
    assert cells | {"Block", "Block.head.0", "Block.head.1", "(no module)", "(weights)"} <= layers
    assert not [layer for layer in layers if "step" in layer]
    for cell in cells:
        for direction in ("forward", "backward", "sum"):
            assert cost(report, direction, "mark", cell)[0] == 5
    assert cost(report, "forward", "tanh", "Block.head.1")[0] == cost(report, "forward", "relu", "Block")[0] == 1
    assert cost(report, "sum", "(weights)", "(weights)")[0] == len(model.parameters())


def test_a_path_is_that_of_errors(backend):
    seen = []

    class Deep(nn.Module):
        def forward(self, x):
            for _ in tr.steps(2):
                x = tr.exp(x)
                seen.append(str(current_scope()))
            return x

    with profile() as report:
        nn.Sequential(nn.Sequential(Deep()))(tr.zeros(1))
    assert seen[1] == "Sequential.0.0, step t=1"
    assert [(row.layer, row.calls) for row in report.rows] == [("Sequential.0.0", 2)]


def test_a_path_is_made_once_and_not_at_every_step(backend, monkeypatch):
    asked = []
    name_of = nn.Module.name_of
    monkeypatch.setattr(nn.Module, "name_of", lambda self, child: asked.append(child) or name_of(self, child))
    model = Block()
    with profile():
        model(tr.randn(20, 2, 3))
    assert len(asked) < 20


def test_modules_that_come_and_go_are_not_taken_for_one_another(backend):
    class One(nn.Module):
        def forward(self, x):
            return tr.exp(x)

    class Other(One):
        pass

    with profile() as report:
        for k in range(100):
            (One, Other)[k % 2]()(tr.zeros(1))
    assert {row.layer: row.calls for row in report.rows} == {"One": 50, "Other": 50}


def test_a_block_inside_a_module_knows_the_module(backend):
    class Inner(nn.Module):
        def forward(self, x):
            with profile() as self.report:
                return tr.exp(x)

    inner = Inner()
    nn.Sequential(inner)(tr.zeros(1))
    assert [row.layer for row in inner.report.rows] == ["Sequential.0"]


def test_a_report_keeps_no_module_and_no_array(backend):
    model, x = Block(), tr.randn(2, 2, 3)
    with profile() as report:
        (model(x) ** 2).sum().backward()
    refs = [weakref.ref(model), weakref.ref(x)]
    del model, x
    gc.collect()
    assert [ref() for ref in refs] == [None, None]
    assert report.rows


# ---------------------------------------------------------------- bytes


def test_bytes_are_those_of_new_arrays(backend):
    x, W = leaf(50, 10), leaf(10, 20)
    with profile() as report:
        y = x @ W
        mask = y > 0
        many = tr.split(tr.stack([y, y]), 2)
        total = tr.where(mask, y, 0.0).sum()
        y.astype("float64")
    assert cost(report, "forward", "matmul")[2] == 50 * 20 * 4
    assert cost(report, "forward", "greater")[2] == 50 * 20
    assert cost(report, "forward", "stack")[2] == 2 * 50 * 20 * 4
    assert cost(report, "forward", "sum")[2] == 4
    assert cost(report, "forward", "astype")[2] == 50 * 20 * 8
    assert len(many) == 2
    assert total.shape == ()


def test_what_is_passed_on_or_not_multiplied_yet_costs_nothing(backend):
    x, W = leaf(50, 10), leaf(10, 20)
    with profile() as report:
        y = x + x
        z = (y @ W).sum()
        z.backward()
    assert cost(report, "backward", "add")[2] == 0  # gy itself, twice
    assert cost(report, "backward", "matmul")[2] == 50 * 10 * 4  # that of W is an Outer
    assert cost(report, "sum", "matmul")[2] == 0  # one part, passed on
    assert cost(report, "sum", "(weights)", "(weights)")[2] == (50 * 10 + 10 * 20) * 4  # y's two parts; the product


def test_what_a_rule_makes_for_later_counts(backend):
    first = tr.primitive(
        "first",
        forward=lambda xp, x, w: x[:1, :],
        vjp=(
            lambda ops, gy, y, x, w: tr.Slice((slice(1), slice(None)), gy * 2),
            lambda ops, gy, y, x, w: tr.Outer(x * 2, gy * 2),
        ),
        saves=("", "x"),
    )
    x, w = leaf(1, 10), leaf(10, 10)
    y = tr.apply(first, x, w).sum()
    with profile() as report:
        y.backward()
    assert cost(report, "backward", "first")[2] == 3 * 10 * 4


def test_views_cost_nothing_on_numpy():
    x = leaf(6, 4)
    with profile() as report:
        (x[1:].T.reshape(4, 5).reshape(20)[2:] * 1).sum().backward()
        tr.split(x, 2)
        tr.broadcast_to(x, (9, 6, 4))
    for op in ("getitem", "transpose", "split", "broadcast_to"):
        assert cost(report, "forward", op)[2] == 0
    assert cost(report, "forward", "reshape")[2] == 20 * 4  # of the transposed one, whose elements must move
    assert cost(report, "backward", "getitem")[2] == 0  # a Slice


def test_views_of_what_the_operation_made_are_what_it_made():
    halves = tr.primitive("halves", forward=lambda xp, x: ((y := x + x)[:2], y[2:]))
    overlap = tr.primitive("overlap", forward=lambda xp, x: ((y := x + x), y, y[1:]))
    room = np.empty((3, 10), dtype="float32")
    lands = tr.primitive("lands", forward=lambda xp, x: np.add(x, x, out=room[0]))
    with profile() as report:
        for op in (halves, overlap, lands):
            tr.apply(op, tr.ones(10))
    assert cost(report, "forward", "halves")[2] == cost(report, "forward", "overlap")[2] == 10 * 4
    assert cost(report, "forward", "lands")[2] == room[0].nbytes  # what it wrote, and not the room around it


# ---------------------------------------------------------------- values


def test_values_and_gradients_are_the_same_inside(backend):
    results = []
    for around in (tr.enable_grad(), profile()):
        tr.manual_seed(3)
        model = Block()
        optimizer = optim.Adam(model.parameters())
        with around:
            for _ in range(2):
                optimizer.zero_grad()
                (model(tr.randn(4, 2, 3)) ** 2).sum().backward()
                optimizer.step()
        results.append([p.tolist() for p in model.parameters()])
    assert results[0] == results[1]


def test_several_results_and_a_copy_to_another_backend(backend):
    x = leaf(4)
    with profile() as report:
        a, b = tr.split(x, 2)
        (a * b).to("numpy").to(backend).sum().backward()
    assert x.grad.shape == (4,)
    assert cost(report, "forward", "split")[0] == 1


# ---------------------------------------------------------------- blocks in blocks


def test_a_profile_inside_another_counts_for_both(clock, slow):
    x = tr.ones(2)
    with profile() as outer:
        tr.apply(slow, x)
        with profile() as inner:
            tr.apply(slow, x)
            clock.spend(1)
        tr.apply(slow, x)
        clock.spend(1)
    assert (cost(outer, "forward", "slow")[:2], outer.seconds, outer.outside) == ((3, 9), 11, 2)
    assert (cost(inner, "forward", "slow")[:2], inner.seconds, inner.outside) == ((1, 3), 4, 1)


def test_a_report_entered_again_adds_to_what_it_has(clock, slow):
    x, report = tr.ones(2), profile()
    for _ in range(3):
        with report as same:
            tr.apply(slow, x)
        assert same is report
        clock.spend(50)
    assert (cost(report, "forward", "slow")[:2], report.seconds) == ((3, 9), 9)


def test_a_report_entered_again_inside_its_block_counts_once(clock, slow):
    x, report = tr.ones(2), profile()
    with report, profile() as other, report:
        tr.apply(slow, x)
    assert (cost(report, "forward", "slow")[:2], report.seconds) == ((1, 3), 3)
    assert (cost(other, "forward", "slow")[:2], other.seconds) == ((1, 3), 3)


def test_after_an_error_the_mode_is_as_before_and_the_report_holds_what_was_measured(backend, clock, slow):
    before = current_mode()
    report = profile()

    def run():
        with report:
            tr.apply(slow, tr.ones(2))
            clock.spend(1)
            tr.ones(2) @ tr.ones(3)

    for n in (1, 2):
        with pytest.raises(tr.errors.ShapeError, match="matmul"):
            run()
        assert current_mode() == before
        assert (cost(report, "forward", "slow")[:2], report.outside) == ((n, 3 * n), n)


def test_an_error_inside_an_operation_leaves_the_measuring_on(clock, slow):
    def fail(xp, x):
        raise ValueError("no")

    broken = tr.primitive("broken", forward=fail)
    with profile() as report:
        with pytest.raises(tr.errors.ShapeError, match="broken"):
            tr.apply(broken, tr.ones(1))
        tr.apply(slow, tr.ones(1))
    assert [row.op for row in report.rows] == ["slow"]


def test_a_report_can_be_read_inside_its_block(clock, slow):
    with profile() as report:
        tr.apply(slow, tr.ones(2))
        clock.spend(1)
        assert (report.seconds, report.outside) == (4, 1)
        assert "slow" in str(report)
        clock.spend(1)
    assert report.seconds == 5


def test_other_threads_and_tasks_are_not_measured():
    def work():
        tr.exp(tr.ones(2))

    async def beside(started):
        await started.wait()
        tr.exp(tr.ones(2))

    async def main():
        started = asyncio.Event()
        task = asyncio.create_task(beside(started))
        with profile() as report:
            started.set()
            await task
            tr.log(tr.ones(2))
        return report

    assert [row.op for row in asyncio.run(main()).rows] == ["log"]
    with profile() as report:
        thread = threading.Thread(target=work)
        thread.start()
        thread.join(10)
    assert report.rows == []


def test_anomalies_are_found_inside(backend):
    with np.errstate(all="ignore"), pytest.raises(tr.errors.NonFiniteError), profile() as report, tr.detect_anomaly():
        tr.log(-tr.ones(1))
    assert {row.op for row in report.rows} >= {"log"}


# ---------------------------------------------------------------- what it says


@pytest.fixture
def filled(clock):
    """A report of a known content: operations a0 … a5, of 1 … 6 ms, two layers, 9 ms outside."""
    with profile(top=4) as report:
        for k in range(6):
            report.add(("forward", f"a{k}", "Net.one"), (k + 1) / 1000, 1_000_000)
            clock.spend((k + 1) / 1000)
        report.add(("backward", "a5", "Net.two"), 0.010, 2_500_000)
        report.add(("backward", "a5", "Net.one"), 0.010, 0)
        clock.spend(0.029)
    return report


def test_rows_are_for_programs(filled):
    assert filled.rows[2] == Row("forward", "a5", "Net.one", 1, 0.006, 1_000_000)
    assert len(filled.rows) == 8
    seconds = [row.seconds for row in filled.rows]
    assert seconds == sorted(seconds, reverse=True)
    assert filled.by_operation()[0] == Row("backward", "a5", "", 2, 0.020, 2_500_000)
    layers = {(row.layer, row.direction): (row.op, row.calls, row.bytes) for row in filled.by_layer()}
    assert layers == {
        ("Net.one", "forward"): ("", 6, 6_000_000),
        ("Net.one", "backward"): ("", 1, 0),
        ("Net.two", "backward"): ("", 1, 2_500_000),
    }
    assert filled.seconds == pytest.approx(0.050)
    assert filled.outside == pytest.approx(0.009)


PRINTED = """
                                              ms  share  calls   µs/call   MB
forward                                    21.00    42%      6   3,500.0  6.0
backward                                   20.00    40%      2  10,000.0  2.5
sum (gradients that meet)
outside of operations (Python, the graph)   9.00    18%
together                                   50.00             8            8.5

by operation               ms  share  calls   µs/call   MB
a5            backward  20.00    40%      2  10,000.0  2.5
a5            forward    6.00    12%      1   6,000.0  1.0
a4            forward    5.00    10%      1   5,000.0  1.0
a3            forward    4.00     8%      1   4,000.0  1.0
… 3 more                 6.00    12%      3   2,000.0  3.0

by layer     ms  share  forward  backward  sum  calls   µs/call   MB
Net.one   31.00    62%    21.00     10.00           7   4,428.6  6.0
Net.two   10.00    20%              10.00           1  10,000.0  2.5
"""


def test_it_prints_aligned_tables(filled):
    assert str(filled) == PRINTED.strip("\n")


def test_one_line_more_stands_for_itself(clock):
    with profile(top=1) as report:
        for k in range(2):
            report.add(("forward", f"a{k}", f"Net.{k}"), 1.0, 0)
    assert "more" not in str(report)
    assert "Net.1" in str(report)


def test_many_layers_are_summed_up_too(clock):
    with profile(top=2) as report:
        for k in range(4):
            report.add(("backward", "a", f"Net.{k}"), 1.0, 500_000)
    assert str(report).splitlines()[-1].split() == ["…", "2", "more", "2,000.00", "2,000.00", "2", "1,000,000.0", "1.0"]


def test_a_report_of_nothing_says_so():
    with profile() as report:
        pass
    assert "no operation was measured" in str(report)
    assert report.rows == report.by_layer() == report.by_operation() == []


def test_repr_is_short(filled):
    assert repr(filled) == "<profile of 8 calls in 50.0 ms: print shows it>"


@pytest.mark.parametrize("top", [0, -1, 1.5, "3", True, None])
def test_top_is_a_count(top):
    with pytest.raises(ValueError, match=r"profile: top is .*; expected an int of 1 or more"):
        profile(top=top)


def test_a_fused_or_own_operation_has_its_name(backend):
    with profile() as report:
        tr.apply(mark, tr.ones(2))
    assert "mark" in str(report)
