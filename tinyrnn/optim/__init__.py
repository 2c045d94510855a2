"""Floor 4: how parameters learn from their gradients.

    optimizer = optim.Adam(model.parameters(), lr=2e-3)

    optimizer.zero_grad()
    loss.backward()
    optim.clip_grad_norm(model.parameters(), 5.0)
    optimizer.step()

Names and defaults are PyTorch's. `lr` is a number, or a schedule: `optim.Cosine(2e-3, total=1000)`.
"""

from tinyrnn.optim.optimizers import SGD, Adagrad, Adam, AdamW, Optimizer, RMSProp, clip_grad_norm
from tinyrnn.optim.scaling import LossScaler
from tinyrnn.optim.schedules import Constant, Cosine, Schedule, StepDecay, WarmUp

__all__ = [
    "SGD",
    "Adagrad",
    "Adam",
    "AdamW",
    "Constant",
    "Cosine",
    "LossScaler",
    "Optimizer",
    "RMSProp",
    "Schedule",
    "StepDecay",
    "WarmUp",
    "clip_grad_norm",
]
