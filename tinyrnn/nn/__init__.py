"""Floor 4: layers, and the parameters they learn.

class Tagger(nn.Module):
    def __init__(self):
        self.lstm = nn.LSTM(input_size=8, hidden_size=16)
        self.out = nn.Linear(16, 3)

    def forward(self, x, state=None):
        h, state = self.lstm(x, state)
        return self.out(h), state
"""

from tinyrnn.nn import init
from tinyrnn.nn.attention import Attention, Memory
from tinyrnn.nn.cells import Cell, GRUCell, GRUState, LSTMCell, LSTMState, RNNCell, RNNState
from tinyrnn.nn.layers import Dropout, Embedding, LayerNorm, Linear
from tinyrnn.nn.module import Module, ModuleList, Parameter, Sequential
from tinyrnn.nn.recurrent import GRU, LSTM, RNN, Recurrent, unroll

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "Attention",
    "Cell",
    "Dropout",
    "Embedding",
    "GRUCell",
    "GRUState",
    "LSTMCell",
    "LSTMState",
    "LayerNorm",
    "Linear",
    "Memory",
    "Module",
    "ModuleList",
    "Parameter",
    "RNNCell",
    "RNNState",
    "Recurrent",
    "Sequential",
    "init",
    "unroll",
]
