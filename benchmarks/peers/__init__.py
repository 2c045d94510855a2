"""Those who do the same work: one module each, with what `worker.py` asks of it.

    version() -> str                        of the library, and what else is in use
    Model(cell, size, weights)              "rnn", "lstm" or "gru"; a `work.Size`; `work.weights` of the two
        .step(x, y) -> float | None         one training step; the mean loss before it, if there is one
        .generate(length)                   so many characters, one at a time; only where generating is compared

Modules are imported in a process of their own, and only there.
"""
