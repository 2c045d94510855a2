"""How does it go on? A network hears the first notes of a chorale, and writes the rest in the manner of Bach.

    python examples/music.py                                # learn 274 chorales, and go on with one that is new
    python examples/music.py --quick                        # see it run
    python examples/music.py --piece 7 --start 32 --temperature 0.8 --seed 1
    timidity runs/music/chorale.mid                         # hear it, with whatever plays MIDI

One to many: a few notes go in, and as many as one likes come out. Time goes in sixteenth notes. A recurrent network
remembers what has sounded; from there each voice is drawn knowing what the voices above it sing in the same step:

    p(next step) = p(soprano | past) p(alto | past, soprano) p(tenor | past, soprano, alto) p(bass | …)

The figure is how surprised it is by chorales that it has not learned, in bits per step of four voices. The baseline is
a table that counts, for each voice, which pitch follows which in each quarter of a beat (a bigram model). The split is
by melody: chorales that begin alike are in one part. While it learns, pieces are moved to other keys.

A note that is held and one that is struck again look the same in this data, so the longest note is reported, beside the
longest of Bach's: a network that has got stuck would be caught by it. What it writes is in chorale.mid and chorale.png.

Tunes are music too, and in ABC notation they are text. The example of text learns them, and then writes tunes:
    python examples/char_rnn.py --text tunes --seconds 60 --out runs/tunes
    python examples/char_rnn.py sample --checkpoint runs/tunes --prompt "T:" --temperature 0.7

Data: 359 chorales of J. S. Bach (public domain), encoded by M. Greentree and others:
    python -m tinyrnn.data fetch chorales
Source: Allan & Williams 2005, "Harmonising Chorales by Probabilistic Inference"; Hadjeres, Pachet & Nielsen 2017,
    "DeepBach: a Steerable Model for Bach Chorales Generation".
"""

from __future__ import annotations

import math
import struct
from itertools import groupby
from pathlib import Path
from typing import Any

import command
import numpy as np
import numpy.typing as npt

import tinyrnn as tr
from tinyrnn import data, nn, optim
from tinyrnn.fit import fit
from tinyrnn.generate import draw, next_distribution

VOICES = ("soprano", "alto", "tenor", "bass")
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7")
REST, LOWEST, HIGHEST = 0, 31, 86  # MIDI's pitches, with room for other keys
BAR, BEAT = 16, 4  # steps
HIDDEN, PITCH, BATCH, WINDOW = 256, 24, 32, 96  # PITCH: size of a pitch's vector

Array = npt.NDArray[np.int64]


class Composer(nn.Module):
    """A recurrent network of four voices: of what has sounded, what will sound next.

    Shapes: before (T, B, 4), what sounds, and clock (T, B), the step of the bar; after (T, B, 4), what follows.
    """

    def __init__(self, pitches: int, hidden: int) -> None:
        self.pitches, self.clock = nn.Embedding(pitches, PITCH), nn.Embedding(BAR, PITCH)
        self.recurrent = nn.GRU(5 * PITCH, hidden, num_layers=2, dropout=0.3)
        self.hidden = nn.ModuleList(nn.Linear(hidden + voice * PITCH, hidden) for voice in range(4))
        self.outputs = nn.ModuleList(nn.Linear(hidden, pitches) for _ in range(4))
        self.dropout = nn.Dropout(0.3)

    def remember(self, before: Any, clock: Any, state: Any = None) -> tuple[tr.Tensor, Any]:
        """Return h (T, B, H), what is remembered after each step, and the state after the last."""
        sounds = self.pitches(before)
        x = sounds.reshape(*sounds.shape[:2], 4 * PITCH)
        h, state = self.recurrent(tr.concatenate([x, self.clock(clock)], axis=-1), state)
        return self.dropout(h), state

    def voice(self, voice: int, h: tr.Tensor, above: Any) -> tr.Tensor:
        """Return the logits (T, B, V) of one voice's next pitch, given those of the voices above it (T, B, voice)."""
        if voice:
            known = self.pitches(above)
            h = tr.concatenate([h, known.reshape(*known.shape[:2], voice * PITCH)], axis=-1)
        return self.outputs[voice](self.dropout(tr.relu(self.hidden[voice](h))))

    def surprise(self, before: Any, clock: Any, after: Any, mask: Any = None) -> tr.Tensor:
        """Return −log p(after | before), in nats for each step, all voices together."""
        h, _ = self.remember(before, clock)
        losses = [
            tr.cross_entropy(self.voice(voice, h, after[:, :, :voice]), after[:, :, voice], mask=mask)
            for voice in range(4)
        ]
        return tr.stack(losses).sum()


# ---------------------------------------------------------------- pitches as class numbers, and batches of them


def encoded(piece: Array) -> Array:
    """Return class numbers of pitches: 0 is a rest, 1 the lowest pitch."""
    return np.where(piece == REST, 0, piece - LOWEST + 1)


def decoded(classes: Array) -> Array:
    """Return the pitches of class numbers."""
    return np.where(classes == 0, REST, classes + LOWEST - 1)


def transposed(piece: Array, semitones: int) -> Array:
    """Return a piece in another key."""
    return np.where(piece == REST, REST, piece + semitones)


def batches_of(pieces: list[Array]) -> Any:
    """Return a function that makes the batches of an epoch: windows of all pieces, each in a key drawn by chance."""

    def batches(generator: tr.Generator) -> Any:
        random = generator.host
        windows = []
        for piece in pieces:
            moved = encoded(transposed(piece, int(random.integers(-5, 6))))
            first = int(random.integers(0, BAR)) - BAR  # windows begin elsewhere in each epoch
            starts = range(first, len(moved) - 1, WINDOW)
            windows += [(max(start, 0), moved[max(start, 0) : start + WINDOW + 1]) for start in starts]
        for chosen in data.batches(len(windows), BATCH, generator):
            if len(chosen) == BATCH:  # what does not fill a batch waits for another epoch
                begins = np.array([windows[i][0] for i in chosen])
                x, lengths = data.pad([*(windows[i][1] for i in chosen), np.zeros((WINDOW + 1, 4), np.int64)])
                clock = (np.arange(WINDOW)[:, None] + begins) % BAR
                yield x[:-1, :BATCH], clock, x[1:, :BATCH], data.mask(lengths[:BATCH] - 1, WINDOW)

    return batches


@tr.no_grad()
def bits_per_step(model: Composer, pieces: list[Array]) -> float:
    """Return how surprised the network is by whole pieces, from their second step on."""
    model.eval()
    nats = steps = 0.0
    for chosen in data.buckets([len(piece) for piece in pieces], 16):
        x, lengths = data.pad([encoded(pieces[i]) for i in chosen])
        clock = np.repeat(np.arange(len(x) - 1)[:, None] % BAR, len(chosen), axis=1)
        count = (lengths - 1).sum()
        mask = data.mask(lengths - 1, len(x) - 1)
        nats += model.surprise(x[:-1], clock, x[1:], mask).item() * count
        steps += count
    return nats / steps / math.log(2)


def bigram_bits(learned: list[Array], pieces: list[Array], added: float) -> float:
    """Return the bits per step of a table p(pitch | pitch before, step of the beat), for each voice.

    Each count has `added` · p(pitch) in it, so that what has never been seen is not impossible.
    """
    V = HIGHEST - LOWEST + 2
    counts, bits, steps = np.zeros((4, BEAT, V, V)), 0.0, 0
    for piece in map(encoded, learned):
        for voice in range(4):
            np.add.at(counts[voice], (np.arange(1, len(piece)) % BEAT, piece[:-1, voice], piece[1:, voice]), 1)
    common = counts.sum(axis=(1, 2), keepdims=True) + 1  # of each voice: p(pitch), with a step for each one more
    counts += added * common / common.sum(axis=-1, keepdims=True)
    p = counts / counts.sum(axis=-1, keepdims=True)
    for piece in map(encoded, pieces):
        for voice in range(4):
            found = p[voice, np.arange(1, len(piece)) % BEAT, piece[:-1, voice], piece[1:, voice]]
            bits -= np.log2(found).sum()
        steps += len(piece) - 1
    return bits / steps


# ---------------------------------------------------------------- writing, and what has been written


@tr.no_grad()
def compose(model: Composer, start: Array, length: int, temperature: float, generator: tr.Generator) -> Array:
    """Return `length` steps of music (length, 4): those of `start`, and what the network makes of them."""
    model.eval()
    piece = encoded(start)
    clock = np.arange(len(piece))[:, None] % BAR
    h, state = model.remember(piece[:, None], clock)
    while len(piece) < length:
        now = np.zeros((1, 1, 4), np.int64)
        for voice in range(4):
            logits = model.voice(voice, h[-1:], now[:, :, :voice])
            now[0, 0, voice] = draw(next_distribution(logits[0, 0], temperature), generator)
        h, state = model.remember(now, np.array([[len(piece) % BAR]]), state)
        piece = np.concatenate([piece, now[0]])
    return decoded(piece)


def notes(voice: Array) -> list[tuple[int, int]]:
    """Return a voice as notes and rests: pitch and length in steps."""
    return [(int(pitch), len(list(same))) for pitch, same in groupby(voice)]


def longest_note(piece: Array) -> int:
    """Return the length of the longest note of all voices, in steps."""
    return max(length for voice in piece.T for pitch, length in notes(voice) if pitch != REST)


def write_midi(path: Path, piece: Array, beats_per_minute: int = 84) -> None:
    """Write a piece (T, 4) as a standard MIDI file: a track for each voice, and one for the tempo.

    Source: MIDI Manufacturers Association 1996, "Standard MIDI Files 1.0".
    """

    def track(events: bytes) -> bytes:
        events += b"\x00\xff\x2f\x00"  # the end
        return b"MTrk" + struct.pack(">I", len(events)) + events

    def later(steps: int) -> bytes:
        """Return a time in steps, 7 bits in each byte; all but the last have the 8th bit set."""
        groups = [steps & 0x7F]
        while steps := steps >> 7:
            groups.insert(0, steps & 0x7F | 0x80)
        return bytes(groups)

    tracks = [track(b"\x00\xff\x51\x03" + struct.pack(">I", 60_000_000 // beats_per_minute)[1:])]
    for channel, voice in enumerate(piece.T):
        events, pause = bytes([0, 0xC0 | channel, 19]), 0  # 19: a church organ
        for pitch, length in notes(voice):
            if pitch == REST:
                pause += length
            else:
                events += later(pause) + bytes([0x90 | channel, pitch, 80])
                events += later(length) + bytes([0x80 | channel, pitch, 0])
                pause = 0
        tracks.append(track(events))
    path.write_bytes(b"MThd" + struct.pack(">IHHH", 6, 1, len(tracks), BEAT) + b"".join(tracks))


def main() -> None:
    """Learn chorales, and write one."""
    options = command.arguments(
        __doc__,
        240,
        ("--piece", int, 0, "which of the chorales that were held back to begin with"),
        ("--start", int, BAR, "steps of it to begin with"),
        ("--length", int, 192, "steps to write, of 16 in a bar"),
        ("--temperature", float, 0.9, "under 1 more likely, over 1 more daring"),
    )
    train, validation, test = data.load("chorales")
    if options.quick:
        train, validation, test = train[::6], validation[::6], test[::3]
    if not 0 <= options.piece < len(test):
        raise ValueError(f"--piece {options.piece}; expected 0 to {len(test) - 1}")
    if not options.temperature >= 0:
        raise ValueError(f"--temperature {options.temperature}; expected 0 or more")
    if not 1 <= options.start <= options.length:
        raise ValueError(f"--start {options.start} and --length {options.length}; expected 1 step or more, of no more")
    model = Composer(HIGHEST - LOWEST + 2, 64 if options.quick else HIDDEN)
    print(f"{len(train)} chorales to learn; {sum(p.size for p in model.parameters()):,} parameters")
    history = fit(
        model,
        lambda batch: model.surprise(*batch),
        batches_of(train),
        optim.Adam(model.parameters(), lr=2e-3),
        validate=lambda: bits_per_step(model, validation),
        seconds=options.seconds,
        patience=12,
        clip=1.0,
        seed=options.seed,
        captured=True,
        folder=options.out,
    )
    if not history.epochs:
        print(f"{command.too_early(history, options)}: this is the music of a beginner")
    added = min((0.1, 0.3, 1.0, 3.0, 10.0), key=lambda added: bigram_bits(train, validation, added))
    bach = test[options.piece]
    written = compose(model, bach[: options.start], options.length, options.temperature, tr.Generator(options.seed))
    print(f"longest note: {longest_note(written)} steps; of Bach's {max(map(longest_note, train))}")
    write_midi(options.out / "chorale.mid", written)
    write_midi(options.out / "bach.mid", bach)
    save_piano_roll(written, bach, options.start, options.out / "chorale.png")
    print(f"written: {options.out / 'chorale.mid'}; {options.out / 'bach.mid'} is how it went on")
    command.reached("bits per step", bits_per_step(model, test), "bigrams", bigram_bits(train, test, added))


def save_piano_roll(written: Array, bach: Array, start: int, path: Path) -> None:
    """Draw what was written above what Bach wrote: a row for each pitch, a bar for each note."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(14, 8), layout="constrained")
    for ax, piece, title in zip(figure.subplots(2, 1), (written, bach), ("the network", "Bach"), strict=True):
        for voice, name, colour in zip(piece.T, VOICES, COLOURS, strict=True):
            ends = np.cumsum([length for _, length in notes(voice)])
            for (pitch, length), end in zip(notes(voice), ends, strict=True):
                if pitch != REST:
                    ax.broken_barh([(end - length + 0.1, length - 0.2)], (pitch - 0.4, 0.8), color=colour)
            ax.plot([], [], color=colour, lw=6, label=name)
        ax.axvspan(0, start, color="#DDDDDD", zorder=0)
        ax.set(
            xlim=(0, len(written)), ylim=(34, 83), xticks=range(0, len(written) + 1, BAR), ylabel="pitch (60: middle C)"
        )
        ax.grid(axis="x", color="#EEEEEE")
        ax.set_title(f"{title}; grey: what the network was given")
    ax.set_xlabel("time, sixteenth notes")
    ax.legend(loc="upper right", ncols=4)
    figure.savefig(path, dpi=100)
    print(f"drawn: {path}")


if __name__ == "__main__":
    command.run(main)
