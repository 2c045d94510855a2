"""The training loop: it learns, stops when it should, keeps the best, and goes on to the bit where it was stopped."""

import csv
import itertools
import math
import os
import signal
import threading

import numpy as np
import pytest

import tinyrnn as tr
from tinyrnn import checkpoint, data, nn, optim
from tinyrnn import fit as fit_module
from tinyrnn.fit import CHECKPOINT, LOG, fit

SEQUENCES = [np.random.default_rng(k).normal(size=(3 + k % 3, 2)).astype("float32") for k in range(20)]
TARGETS = np.array([[sequence.sum() > 0] for sequence in SEQUENCES], "float32")
STEPS = 5  # of an epoch, of 4 sequences each


class Sign(nn.Module):
    """Reads a sequence, and tells whether its sum is positive; drops some of what it remembers."""

    def __init__(self):
        self.recurrent = nn.GRU(2, 6)
        self.dropout = nn.Dropout(0.3)
        self.output = nn.Linear(6, 1)

    def forward(self, x, lengths):
        _, state = self.recurrent(x, lengths=lengths)
        return self.output(self.dropout(state.h[-1]))


class Run:
    """A model, its optimizer, and what `fit` needs of them; `before` is called before each step."""

    def __init__(self, seed=0, before=lambda step: None):
        tr.manual_seed(seed)
        self.model = Sign()
        self.optimizer = optim.Adam(self.model.parameters(), lr=optim.Cosine(0.02, total=30))
        self.before, self.steps, self.lines = before, 0, []

    def loss_of(self, batch):
        self.before(self.steps)
        self.steps += 1
        x, lengths, y = batch
        return tr.binary_cross_entropy(self.model(tr.tensor(x), lengths), tr.tensor(y))

    def batches(self, generator):
        for chosen in data.buckets([len(sequence) for sequence in SEQUENCES], 4, generator):
            yield *data.pad([SEQUENCES[i] for i in chosen]), TARGETS[chosen]

    def validate(self):
        x, lengths = data.pad(SEQUENCES)
        return tr.binary_cross_entropy(self.model(tr.tensor(x), lengths), tr.tensor(TARGETS)).item()

    def fit(self, **options):
        options = {"validate": self.validate, "report": self.lines.append, "clip": 1.0} | options
        return fit(self.model, self.loss_of, self.batches, self.optimizer, **options)

    @property
    def parameters(self):
        return {name: p.numpy().copy() for name, p in self.model.state_dict().items()}


def without_seconds(history):
    return [{name: figure for name, figure in line.items() if name != "seconds"} for line in history.epochs]


def assert_same(a, b):
    """See that two runs are equal to the last bit."""
    (run_a, history_a), (run_b, history_b) = a, b
    assert history_a.losses == history_b.losses
    assert history_a.norms == history_b.norms
    assert without_seconds(history_a) == without_seconds(history_b)
    assert history_a.best["epoch"] == history_b.best["epoch"]
    assert run_a.parameters.keys() == run_b.parameters.keys()
    for name, values in run_a.parameters.items():
        np.testing.assert_array_equal(values, run_b.parameters[name])


def interrupt(at):
    """Return a `before` that presses Ctrl-C during a step."""
    return lambda step: signal.raise_signal(signal.SIGINT) if step == at else None


class Kill(BaseException):
    """Ends a run as a kill does: nothing more is written."""


def kill(at):
    def before(step):
        if step == at:
            raise Kill

    return before


# ---------------------------------------------------------------- learning


def test_it_learns(backend):
    run = Run()
    history = run.fit(epochs=15)
    assert np.mean(history.losses[-10:]) < 0.8 * np.mean(history.losses[:10])
    assert history.ended == "epochs"
    assert (len(history.losses), len(history.norms), run.steps) == (15 * STEPS,) * 3
    assert run.lines == history.epochs
    assert [line["epoch"] for line in history.epochs] == list(range(1, 16))
    assert [line["steps"] for line in history.epochs] == [n * STEPS for n in range(1, 16)]
    assert math.isclose(history.epochs[1]["loss"], np.mean(history.losses[STEPS : 2 * STEPS]))
    assert math.isclose(history.epochs[1]["norm"], np.mean(history.norms[STEPS : 2 * STEPS]))
    assert [line["lr"] for line in history.epochs] == [run.optimizer.lr(n * STEPS) for n in range(1, 16)]
    assert 0 <= history.epochs[0]["seconds"] <= history.epochs[-1]["seconds"] <= history.seconds


def test_a_seed_repeats_a_run_and_orders_the_batches():
    runs = [(run := Run(), run.fit(epochs=2, seed=seed)) for seed in (3, 3, 4)]
    assert_same(runs[0], runs[1])
    assert runs[0][1].losses != runs[2][1].losses


def test_captured_steps_learn_the_same():
    losses = []
    for captured in (False, True):
        tr.manual_seed(0)
        model = nn.Sequential(nn.Linear(2, 8), tr.tanh, nn.Linear(8, 1))
        calls = []

        def loss_of(batch, model=model, calls=calls):
            calls.append(batch)
            x, y = batch
            return tr.mse_loss(model(x), y)

        def batches(generator):
            for _ in range(6):
                x = generator.host.normal(size=(5, 2)).astype("float32")
                yield tr.tensor(x), tr.tensor(x[:, :1] * x[:, 1:])

        adam = optim.Adam(model.parameters(), lr=0.01)
        losses.append(fit(model, loss_of, batches, adam, epochs=3, captured=captured).losses)
        assert len(calls) == (1 if captured else 18)
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)


def test_gradients_are_clipped():
    w = nn.Linear(1, 1)
    before = w.W.numpy().copy()
    sgd = optim.SGD(w.parameters(), lr=1.0)
    history = fit(w, lambda batch: 100 * w.W.sum(), lambda g: [0], sgd, epochs=1, clip=0.5)
    assert history.norms == [100.0]
    np.testing.assert_allclose(before - w.W.numpy(), 0.5, rtol=1e-5)


def test_modes_are_set_and_put_back():
    run, modes = Run(), {"learning": set(), "validating": set(), "reporting": set(), "graph": set()}
    run.before = lambda step: modes["learning"].add(run.model.dropout.training)

    def validate():
        modes["validating"].add(run.model.dropout.training)
        modes["graph"].add(tr.is_grad_enabled())
        return 0.0

    for training in (True, False):
        run.model.train(training)
        run.fit(epochs=2, validate=validate, report=lambda line: modes["reporting"].add(run.model.dropout.training))
        assert run.model.dropout.training == training
    assert modes == {"learning": {True}, "validating": {False}, "reporting": {False}, "graph": {False}}
    assert tr.is_grad_enabled()


# ---------------------------------------------------------------- stopping, and the best


class Scripted:
    """A model whose one weight counts its steps, and whose validation figures are given."""

    def __init__(self, *figures):
        self.model = nn.Linear(1, 1)
        self.model.W.assign([[0.0]])
        self.optimizer = optim.SGD(self.model.parameters(), lr=1.0)
        self.figures = iter(figures)

    def fit(self, **options):
        loss_of, batches = lambda batch: -self.model.W.sum(), lambda generator: [0, 0]
        return fit(self.model, loss_of, batches, self.optimizer, validate=lambda: next(self.figures), **options)

    @property
    def steps(self):
        return round(self.model.W.item())


def test_early_stopping_keeps_the_best():
    run = Scripted(5.0, 3.0, 4.0, 3.0, 3.5, 0.0)
    history = run.fit(patience=3)
    assert history.ended == "patience"
    assert [line["validation"] for line in history.epochs] == [5.0, 3.0, 4.0, 3.0, 3.5]
    assert history.best == history.epochs[1]
    assert run.steps == 4  # as they were after two epochs of two steps


def test_a_run_that_ends_otherwise_keeps_the_best_too():
    run = Scripted(5.0, 3.0, 4.0)
    assert run.fit(epochs=3).best["epoch"] == 2
    assert run.steps == 4


def test_without_validation_the_last_are_kept():
    run = Scripted()
    history = fit(run.model, lambda b: -run.model.W.sum(), lambda g: [0, 0], run.optimizer, epochs=3)
    assert history.best is None
    assert run.steps == 6


def test_of_several_figures_the_first_decides():
    run = Scripted({"error": 0.5, "loss": 1.0}, {"error": 0.7, "loss": 0.1})
    history = run.fit(epochs=2)
    assert history.best["validation_error"] == 0.5
    assert history.epochs[1]["validation_loss"] == 0.1


@pytest.mark.parametrize(("figures", "best"), [
    ((math.nan, 2.0, math.nan), 2), ((2.0, math.nan, 1.0), 3), ((math.inf, 3.0, 4.0), 2),
    ((tr.tensor(2.0), tr.tensor(1.0), tr.tensor(3.0)), 2),
])  # fmt: skip
def test_what_is_no_number_is_never_the_best(figures, best):
    assert Scripted(*figures).fit(epochs=3).best["epoch"] == best


@pytest.mark.parametrize("figures", [None, {}, "good"])
def test_a_validation_that_finds_nothing_is_refused(figures):
    with pytest.raises(ValueError, match=r"fit: validate returned .*; expected a number, or several by name"):
        Scripted(figures).fit(epochs=1)


@pytest.fixture
def clock(monkeypatch):
    """A clock that advances by a second each time somebody looks, and by what is added to its hand."""
    hand = [0.0]

    def monotonic():
        hand[0] += 1.0
        return hand[0]

    monkeypatch.setattr(fit_module, "monotonic", monotonic)
    return hand


def test_the_seconds_are_kept(clock):
    def slow(step):
        clock[0] += 100.0

    run = Run(before=slow)
    history = run.fit(seconds=650)
    assert history.ended == "seconds"
    assert run.steps == 7  # six take less than 650, and seven more
    assert 650 <= history.seconds < 750
    assert [line["steps"] for line in history.epochs] == [5]


def test_an_epoch_whose_last_step_was_the_last_is_validated(clock, tmp_path):
    def slow(step):
        clock[0] += 100.0

    history = Run(before=slow).fit(seconds=100 * STEPS, folder=tmp_path)
    assert (history.ended, len(history.losses)) == ("seconds", STEPS)
    assert [line["steps"] for line in history.epochs] == [STEPS]
    assert history.best == history.epochs[0]
    assert checkpoint.load(tmp_path / CHECKPOINT)["seen"] == 0


def test_seconds_count_on_after_a_resume(clock, tmp_path):
    def slow(step):
        clock[0] += 100.0

    Run(before=slow).fit(seconds=350, folder=tmp_path)
    run = Run(before=slow)
    assert len(run.fit(seconds=650, folder=tmp_path, resume=True).losses) == 7
    assert run.steps == 3


def test_no_seconds_are_no_steps(capsys):
    run = Run()
    before = run.parameters
    assert run.fit(seconds=0).losses == []
    assert capsys.readouterr().err == ""  # no empty bar
    for name, values in before.items():
        np.testing.assert_array_equal(values, run.parameters[name])


def test_ctrl_c_ends_it_after_the_step(tmp_path):
    run = Run(before=interrupt(7))
    handler = signal.getsignal(signal.SIGINT)
    history = run.fit(epochs=5, folder=tmp_path)
    assert history.ended == "Ctrl-C"
    assert len(history.losses) == 8
    assert checkpoint.load(tmp_path / CHECKPOINT)["seen"] == 3
    assert signal.getsignal(signal.SIGINT) is handler


def test_a_second_ctrl_c_ends_it_at_once():
    def before(step):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    run, handler = Run(before=before), signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        run.fit(epochs=5)
    assert signal.getsignal(signal.SIGINT) is handler


def test_it_runs_in_another_thread():
    run, histories = Run(), []
    thread = threading.Thread(target=lambda: histories.append(run.fit(epochs=1)))
    thread.start()
    thread.join()
    assert len(histories[0].losses) == STEPS


# ---------------------------------------------------------------- going on


@pytest.fixture(scope="module")
def uninterrupted():
    run = Run()
    return run, run.fit(epochs=4)


@pytest.mark.parametrize("at", [0, 4, 6, 9, 19])
def test_a_resumed_run_is_the_same_to_the_bit(uninterrupted, tmp_path, at):
    Run(before=interrupt(at)).fit(epochs=4, folder=tmp_path)
    resumed = Run(seed=77)  # other first parameters, other random numbers: all is read back
    history = resumed.fit(epochs=4, folder=tmp_path, resume=True)
    assert resumed.steps == 20 - (at + 1)
    assert history.ended == "epochs"
    assert_same(uninterrupted, (resumed, history))


def test_a_run_that_is_stopped_again_and_again_is_the_same_to_the_bit(uninterrupted, tmp_path):
    for k in itertools.count():
        run = Run(seed=k, before=interrupt(2))
        history = run.fit(epochs=4, folder=tmp_path, resume=k > 0)
        if history.ended == "epochs":
            break
    assert k > 5
    assert_same(uninterrupted, (run, history))


@pytest.mark.parametrize("at", [3, 5, 12])
def test_a_killed_run_goes_on_from_its_last_checkpoint(uninterrupted, tmp_path, monkeypatch, at):
    monkeypatch.setattr(fit_module, "SAVE_SECONDS", -1.0)
    with pytest.raises(Kill):
        Run(before=kill(at)).fit(epochs=4, folder=tmp_path)
    resumed = Run(seed=5)
    assert_same(uninterrupted, (resumed, resumed.fit(epochs=4, folder=tmp_path, resume=True)))
    assert resumed.steps == 20 - at


def test_a_finished_run_can_be_given_more_epochs(uninterrupted, tmp_path):
    Run().fit(epochs=3, folder=tmp_path)
    resumed = Run(seed=9)
    assert_same(uninterrupted, (resumed, resumed.fit(epochs=4, folder=tmp_path, resume=True)))
    again = Run(seed=10)
    assert_same(uninterrupted, (again, again.fit(epochs=4, folder=tmp_path, resume=True)))  # nothing is left to do
    assert again.steps == 0


def test_the_best_and_the_patience_are_resumed(tmp_path):
    first = Scripted(2.0, 1.0, 5.0)
    first.fit(epochs=3, folder=tmp_path)
    second = Scripted(6.0, 7.0, 0.0)
    history = second.fit(patience=3, folder=tmp_path, resume=True)
    assert history.ended == "patience"
    assert [line["validation"] for line in history.epochs] == [2.0, 1.0, 5.0, 6.0, 7.0]
    assert second.steps == 4
    assert checkpoint.load(tmp_path / CHECKPOINT)["model"]["W"].item() == 10  # the last, to go on from
    assert checkpoint.load(tmp_path / CHECKPOINT)["best"]["W"].item() == 4


def test_another_validation_after_a_resume_begins_anew(tmp_path):
    Scripted(2.0).fit(epochs=1, folder=tmp_path)
    history = Scripted({"error": 9.0}).fit(epochs=2, folder=tmp_path, resume=True)
    assert history.best["validation_error"] == 9.0
    with (tmp_path / LOG).open(encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert [(line["validation"], line["validation_error"]) for line in lines] == [("2.0", ""), ("", "9.0")]


# ---------------------------------------------------------------- what is written


def test_the_log_is_a_table(tmp_path):
    history = Run().fit(epochs=3, folder=tmp_path)
    with (tmp_path / LOG).open(encoding="utf-8", newline="") as file:
        lines = [{name: float(figure) for name, figure in line.items()} for line in csv.DictReader(file)]
    assert lines == history.epochs
    assert list(lines[0]) == ["epoch", "steps", "seconds", "loss", "norm", "lr", "validation"]


@pytest.mark.parametrize("calls", range(1, 5))
def test_nothing_is_ever_half_written(tmp_path, monkeypatch, calls):
    Run(before=interrupt(6)).fit(epochs=4, folder=tmp_path)
    fsync, count = os.fsync, itertools.count(1)

    def full(descriptor):
        if next(count) >= calls:
            raise OSError(28, "No space left on device")
        fsync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        patch.setattr(fit_module, "SAVE_SECONDS", -1.0)
        with pytest.raises(tr.errors.CheckpointError, match="No space left on device"):
            Run().fit(epochs=4, folder=tmp_path, resume=True)
    assert {file.name for file in tmp_path.iterdir()} == {CHECKPOINT, LOG}
    assert len((tmp_path / LOG).read_text(encoding="utf-8").splitlines()) == 2
    resumed, whole = Run(seed=4), Run()
    assert_same((whole, whole.fit(epochs=4)), (resumed, resumed.fit(epochs=4, folder=tmp_path, resume=True)))


def test_a_new_run_keeps_the_earlier_one(tmp_path):
    folder = tmp_path / "deep" / "runs"
    Scripted(1.0).fit(epochs=1, folder=str(folder))
    Scripted(1.0, 2.0).fit(epochs=2, folder=str(folder))
    assert len(checkpoint.load(folder / f"previous-{CHECKPOINT}")["history"]["losses"]) == 2
    assert len(checkpoint.load(folder / CHECKPOINT)["history"]["losses"]) == 4
    assert (folder / f"previous-{LOG}").exists()


def test_a_loss_that_is_nan_changes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(fit_module, "SAVE_SECONDS", -1.0)
    run, parameters = Run(), []
    loss_of = run.loss_of

    def loss_or_nan(batch):
        parameters.append(run.parameters)
        return loss_of(batch) * (math.nan if run.steps == 8 else 1.0)

    run.loss_of = loss_or_nan
    message = "at step 8 the loss is nan .* the parameters are those before that step, and the checkpoint is of step 7"
    with pytest.raises(tr.errors.NonFiniteError, match=message):
        run.fit(epochs=3, folder=tmp_path)
    saved = checkpoint.load(tmp_path / CHECKPOINT)
    assert len(saved["history"]["losses"]) == 7
    for name, values in run.parameters.items():
        np.testing.assert_array_equal(values, parameters[7][name])
        np.testing.assert_array_equal(values, saved["model"][name])


def test_a_gradient_that_is_nan_changes_nothing():
    run = Run()
    before = run.parameters
    run.model.output.W.register_hook(lambda g: g * math.nan)
    with pytest.raises(
        tr.errors.NonFiniteError, match=r"at step 1 the loss is 0\..* its gradient nan; the .* step\. Try"
    ):
        run.fit(epochs=3)
    for name, values in run.parameters.items():
        np.testing.assert_array_equal(values, before[name])


def test_the_bar_tells_where_it_is(capsys):
    Scripted(0.5, 0.25, 0.125).fit(epochs=3, report=lambda line: print("epoch", line["epoch"], "is over"))
    printed = capsys.readouterr()
    assert "epoch 3" in printed.err
    assert "6/6" in printed.err
    assert "validation 0.25" in printed.err
    assert printed.out.splitlines() == ["epoch 1 is over", "epoch 2 is over", "epoch 3 is over"]


# ---------------------------------------------------------------- mistakes


@pytest.mark.parametrize(("options", "message"), [
    ({}, "nothing would end the run; give epochs, seconds, or patience with validate"),
    ({"epochs": 0}, "epochs is 0; expected an int of 1 or more"),
    ({"epochs": 2.5}, "epochs is 2.5; expected an int of 1 or more"),
    ({"patience": 0}, "patience is 0; expected an int of 1 or more"),
    ({"seconds": -1}, "seconds is -1; expected a number of 0 or more"),
    ({"patience": 2, "validate": None}, "patience is 2 and there is no validate"),
    ({"epochs": 2, "resume": True}, "resume=True needs the folder"),
])  # fmt: skip
def test_options_that_do_not_go_together_are_named(options, message):
    with pytest.raises(ValueError, match=f"fit: {message}"):
        Run().fit(**options)


def test_batches_are_a_function():
    run = Run()
    with pytest.raises(ValueError, match="batches is a list; expected a function of a generator"):
        fit(run.model, run.loss_of, [1, 2], run.optimizer, epochs=1)


def test_an_epoch_has_a_batch():
    run = Run()
    with pytest.raises(tr.errors.DataError, match="gave no batch; expected at least one"):
        fit(run.model, run.loss_of, lambda generator: [], run.optimizer, epochs=1)


@pytest.mark.parametrize(("loss", "given"), [(tr.zeros(3), r"a tensor \(3,\)"), (0.5, "float"), (None, "NoneType")])
def test_a_loss_is_one_number(loss, given):
    run = Run()
    with pytest.raises(tr.errors.ShapeError, match=f"loss_of returned {given}; expected a tensor of one number"):
        fit(run.model, lambda batch: loss, lambda generator: [0], run.optimizer, epochs=1)


def test_what_is_resumed_must_be_there(tmp_path):
    with pytest.raises(tr.errors.CheckpointError, match="cannot read"):
        Run().fit(epochs=1, folder=tmp_path, resume=True)
    checkpoint.save(tmp_path / CHECKPOINT, {"model": 1})
    with pytest.raises(tr.errors.CheckpointError, match="is a checkpoint, but not one of fit"):
        Run().fit(epochs=1, folder=tmp_path, resume=True)


@pytest.mark.parametrize(("name", "damage"), [
    ("history", {"losses": 3}),
    ("history", {}),
    ("order", {"bit_generator": "MT19937"}),
    ("random", 7),
])  # fmt: skip
def test_what_is_damaged_is_not_resumed(name, damage, tmp_path):
    Run().fit(epochs=1, folder=tmp_path)
    checkpoint.save(tmp_path / CHECKPOINT, checkpoint.load(tmp_path / CHECKPOINT) | {name: damage})
    run = Run(seed=4)
    before = run.parameters
    with pytest.raises(tr.errors.CheckpointError, match=r"is damaged: .*; go on from an earlier one"):
        run.fit(epochs=2, folder=tmp_path, resume=True)
    for parameter, values in before.items():
        np.testing.assert_array_equal(values, run.parameters[parameter])


def test_a_folder_that_cannot_be_is_refused_before_training(tmp_path):
    (tmp_path / "file").write_text("dear to somebody", encoding="utf-8")
    run = Run()
    with pytest.raises(tr.errors.CheckpointError, match=r"fit: cannot write to .*file: File exists; choose another"):
        run.fit(epochs=1, folder=tmp_path / "file")
    assert run.steps == 0
