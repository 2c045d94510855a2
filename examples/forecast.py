"""Forecasting: tomorrow's highest temperature, and the temperature in one hour and in 24 hours.

    python examples/forecast.py               # both sets, a minute; runs/forecast has the networks and a picture
    python examples/forecast.py --quick       # see it run

Many to one: a window of measurements comes in, and after its last step the network says what follows. It is easily
beaten by two forecasts that need no network: persistence, "as it is now", and the seasonal one, "as it was a season
ago": a year for the days, a day for the hours. So the network starts from the better of the two, and learns by how much
it will be off. All errors are mean absolute ones, over the same held-out times.

Data: the weather of Seattle, day by day: 2012 and 2013 to learn from, 2014 to choose by, 2015 held out. Temperatures of
San Francisco, hour by hour through one year, the last tenth held out; these are averages over many years, not a year's
weather: the same hour of two days in a row differs by 0.1 °F, and forecasting them says nothing about real weather.
Both are NOAA's, public domain: python -m tinyrnn.data fetch weather; python -m tinyrnn.data fetch temperatures
The picture needs Matplotlib: pip install 'tinyrnn[plot]'
"""

from __future__ import annotations

import argparse
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import command
import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

import tinyrnn as tr
from tinyrnn import data, nn, optim
from tinyrnn.fit import fit

DROPOUT = 0.2
SIMPLE = ("persistence", "seasonal")
Array = npt.NDArray[Any]


class Problem(NamedTuple):
    """What is to be forecast."""

    name: str  # of the data set
    column: int  # which of its measurements
    step: str  # what a step in time is
    unit: str
    horizons: tuple[int, ...]  # how many steps ahead
    season: int  # of how many steps
    start: str  # the simple forecast that the network improves on, the better one while it learns
    window: int  # steps that the network sees
    hidden: int


TEMPERATURES = Problem("temperatures", 0, "hour", "°F", (1, 24), 24, "seasonal", window=48, hidden=32)
WEATHER = Problem("weather", 1, "day", "°C", (1,), 365, "persistence", window=20, hidden=16)


class Forecaster(nn.Module):
    """A GRU over the window, and a linear map of its last state: x (T, B, I) -> (B, horizons)."""

    def __init__(self, inputs: int, hidden: int, horizons: int) -> None:
        self.gru = nn.GRU(inputs, hidden)
        self.dropout = nn.Dropout(DROPOUT)
        self.output = nn.Linear(hidden, horizons)

    def forward(self, x: tr.Tensor) -> tr.Tensor:
        """Return how far the simple forecast will be off, in units of how far it usually is."""
        _, state = self.gru(x)
        return self.output(self.dropout(state.h[-1]))


def now_of_parts(problem: Problem, parts: data.Split[Array]) -> list[Array]:
    """Return for each part the steps after which it is forecast: all that is forecast from there is in that part.

    What is seen by then may reach back into the part before: it is the past, and known.
    """
    ends = np.cumsum([0, *map(len, parts)])
    first = problem.window + problem.season if problem.start == "seasonal" else problem.window
    near, far = min(problem.horizons), max(problem.horizons)
    return [np.arange(max(start - near, first), end - far) for start, end in pairwise(ends)]


def simple_forecast(name: str, y: Array, now: Array, problem: Problem) -> Array:
    """Return (B, horizons): what is measured now, or what was measured a season before the time in question."""
    ahead = np.array(problem.horizons)
    return y[now[:, None] + (0 * ahead if name == "persistence" else ahead - problem.season)]


def features(x: Array, problem: Problem, learned: int) -> Array:
    """Return (T, I): measurements on one scale, how they have changed for a step or a season, the time of season."""
    y, back = x[:, problem.column], problem.season if problem.start == "seasonal" else 1
    change = np.append(np.zeros(back), y[back:] - y[:-back])
    phase = 2 * np.pi * np.arange(len(x)) / problem.season
    columns = np.column_stack([x, change])
    scaled = (columns - columns[:learned].mean(0)) / columns[:learned].std(0)
    return np.column_stack([scaled, np.sin(phase), np.cos(phase)]).astype(np.float32)


def solve(problem: Problem, options: argparse.Namespace) -> dict[str, Array]:
    """Train one network, print its errors, and return the held-out truth and the forecasts of it, (B, horizons)."""
    parts = data.load(problem.name)
    x = np.concatenate(parts)
    y = x[:, problem.column]
    train, validation, test = now_of_parts(problem, parts)
    if options.quick:
        train, validation, test = train[-300:], validation[:100], test[:100]

    seen = features(x, problem, len(parts.train))
    ahead = np.array(problem.horizons)
    scale = (y[train[:, None] + ahead] - simple_forecast(problem.start, y, train, problem)).std(0)
    model = Forecaster(seen.shape[1], problem.hidden, len(ahead))
    print(f"{problem.name}: {len(train):,} windows of {problem.window} {problem.step}s\n{model!r}")

    def windows(now: Array) -> tr.Tensor:
        """Return the last steps up to now: (T, B, I)."""
        return tr.tensor(seen[now + np.arange(1 - problem.window, 1)[:, None]])

    def forecast(now: Array) -> Array:
        """Return the network's forecasts: the simple one, and what is to be added to it."""
        return simple_forecast(problem.start, y, now, problem) + scale * model(windows(now)).numpy()

    def error(now: Array, forecasts: Array) -> Array:
        """Return the mean absolute error for each horizon."""
        return np.abs(forecasts - y[now[:, None] + ahead]).mean(0)

    def loss_of(chosen: Array) -> tr.Tensor:
        off = (y[train[chosen][:, None] + ahead] - simple_forecast(problem.start, y, train[chosen], problem)) / scale
        return tr.abs(model(windows(train[chosen])) - tr.tensor(off.astype(np.float32))).mean()

    history = fit(
        model,
        loss_of,
        batches=lambda generator: data.batches(len(train), 32, generator),
        optimizer=optim.Adam(model.parameters(), lr=2e-3),
        validate=lambda: {"error": float((error(validation, forecast(validation)) / scale).mean())},
        seconds=options.seconds / 2,  # there are two problems
        patience=10,
        clip=1.0,
        seed=options.seed,
        folder=options.out / problem.name,
    )
    if history.best is None:
        print(command.too_early(history, options))

    model.eval()
    with tr.no_grad():
        found = {"network": forecast(test)}
    found |= {name: simple_forecast(name, y, test, problem) for name in SIMPLE}
    print(f"{len(history.epochs)} epochs in {history.seconds:.0f} s")
    for k, steps in enumerate(problem.horizons):
        errors = ", ".join(
            f"{name} {error(test, forecasts)[k]:.3f} {problem.unit}" for name, forecasts in found.items()
        )
        print(f"{problem.name}, {problem.step}s ahead: {steps}; mean error: {errors}")
    return found | {"truth": y[test[:, None] + ahead]}


def draw(days: dict[str, Array], hours: dict[str, Array], path: Path) -> None:
    """Draw two weeks of the held-out part: the forecasts beside the truth, and how far those of the hours are off."""
    colours = {"network": "#0072B2", "persistence": "#E69F00", "seasonal": "#CC79A7", "truth": "black"}  # Okabe & Ito
    figure = Figure(figsize=(10, 9), layout="constrained")
    axes = figure.subplots(3)

    def lines(ax: Any, a_day: int, series: dict[str, Array]) -> None:
        for name, values in series.items():
            shown = values[len(values) // 2 :][: 14 * a_day]  # from the middle on
            marker = "o" if name == "truth" and a_day == 1 else ""
            ax.plot(np.arange(len(shown)) / a_day, shown, color=colours[name], lw=1.2, marker=marker, ms=4, label=name)
        ax.legend(frameon=False, ncols=4, fontsize=8)

    lines(axes[0], 1, {name: values[:, 0] for name, values in days.items()})
    lines(axes[1], 24, {name: values[:, 0] for name, values in hours.items()})
    lines(axes[2], 24, {name: values[:, 1] - hours["truth"][:, 1] for name, values in hours.items()})
    axes[0].set(title="Seattle: highest temperature, forecast the day before", ylabel="°C")
    axes[1].set(title="San Francisco, averages of many years: forecast an hour before", ylabel="°F")
    axes[2].set(
        title="24 hours before: how far it is off (a day is the season, so the two simple ones are the same)",
        ylabel="°F",
        xlabel="days",
    )
    figure.savefig(path, dpi=120)


def main() -> None:
    """Forecast both, and say how far the forecasts are off."""
    options = command.arguments(__doc__, seconds=60)
    hours, days = solve(TEMPERATURES, options), solve(WEATHER, options)
    draw(days, hours, options.out / "two_weeks.png")
    print(f"drawn: {options.out / 'two_weeks.png'}")
    errors = {name: float(np.abs(forecasts - days["truth"]).mean()) for name, forecasts in days.items()}
    better = min(SIMPLE, key=lambda name: errors[name])
    command.reached("mean error, °C a day ahead", errors["network"], better, errors[better])


if __name__ == "__main__":
    command.run(main)
