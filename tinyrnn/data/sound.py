"""Spoken digits, and the log-mel spectrogram, which is how networks are given sound."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tinyrnn.data.splits import Split, split_by_key
from tinyrnn.errors import DataError

Array = npt.NDArray[Any]

SAMPLE_RATE = 8000  # of the spoken digits, as on the telephone


def read_speech(folder: Path) -> Split[list[tuple[Array, str]]]:
    """Read spoken digits: pairs of a clip, float32 (N,) from -1 to 1 at 8,000 samples a second, and "314".

    A speech synthesizer, not people, says one to five digits in English, in 104 voices, with eight accents and at
    different speeds. Split by voice. `log_mel` makes features of a clip.
    """
    (file,) = folder.rglob("speech.npz")
    with np.load(file, allow_pickle=False) as stored:
        samples, ends, digits, voices = (stored[name] for name in ("samples", "ends", "digits", "voices"))
    clips = np.split(samples.astype(np.float32) / 32768, ends[:-1])
    said = list(zip(clips, digits.tolist(), voices.tolist(), strict=True))
    parts = split_by_key(said, key=lambda clip: clip[2])
    return Split(*([(samples, digits) for samples, digits, _ in part] for part in parts))


def log_mel(
    samples: npt.ArrayLike, rate: int = SAMPLE_RATE, bands: int = 40, frame: float = 0.025, hop: float = 0.010
) -> npt.NDArray[np.float32]:
    """Return the log-mel spectrogram of a sound: how loud it is, in time, in bands of pitch as we hear it.

        X_t[k] = Σ_n w[n] x[tS + n] exp(-2πi kn/N)
        y_t[m] = log(Σ_k F[k, m] |X_t[k]|² + 10⁻⁶)

    A frame t has N samples, S behind those of the one before, under a Hann window w. The bands m are evenly spaced in
    mel(f) = 2595 log₁₀(1 + f/700), and F[:, m] is a triangle: 0 at the centre of the band below, 1 at its own, and 0
    again at that of the band above.

    Args:
        samples: (n,) numbers, at least one frame of them.
        rate: samples a second.
        bands: how many bands there are between 0 and rate / 2.
        frame: the length of a frame in seconds.
        hop: the time from the start of one frame to that of the next in seconds.

    Returns:
        float32 (T, bands), with T = 1 + (n - N) // S: a last, incomplete frame is left out.

    Raises:
        DataError: samples that are not numbers in one dimension, or shorter than a frame; sizes that are not above 0.

    Source: Davis and Mermelstein 1980, "Comparison of parametric representations for monosyllabic word recognition".

    >>> import numpy as np
    >>> from tinyrnn import data
    >>> sound = np.sin(2 * np.pi * 440 / 8000 * np.arange(8000))  # a second of the note A
    >>> y = data.log_mel(sound)
    >>> y.shape, int(y[50].argmax())
    ((98, 40), 9)
    """
    x = np.asarray(samples)
    N, S = round(frame * rate), round(hop * rate)
    if min(rate, bands, N, S) < 1:
        raise DataError(f"log_mel: rate is {rate}, bands {bands}, frame {frame} and hop {hop}; give numbers above 0")
    if x.ndim != 1 or x.dtype.kind not in "iuf" or len(x) < N:
        raise DataError(
            f"log_mel: the samples have shape {x.shape} and dtype {x.dtype}; give numbers in one dimension, at least "
            f"{N} of them, a frame of {frame} s"
        )
    frames = np.lib.stride_tricks.sliding_window_view(x, N)[::S]  # (T, N)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(N) / N)
    power = np.abs(np.fft.rfft(frames * window)) ** 2  # (T, N // 2 + 1)
    return np.log(power @ _mel_filters(N, rate, bands) + 1e-6).astype(np.float32)


def _mel_filters(N: int, rate: int, bands: int) -> Array:
    """Return F (N // 2 + 1, bands): in each column the triangle of a band over the frequencies of the spectrum."""
    edges = np.linspace(0, 2595 * np.log10(1 + rate / 2 / 700), bands + 2)  # in mel: low, the centres, high
    low, centre, high = (700 * (10 ** (edges[i : i + bands] / 2595) - 1) for i in range(3))
    f = np.arange(N // 2 + 1)[:, None] * rate / N
    return np.maximum(0, np.minimum((f - low) / (centre - low), (high - f) / (high - centre)))
