"""Floor 4: layers, and the parameters they learn.

    class Tagger(nn.Module):
        def __init__(self):
            self.lstm = nn.LSTM(input_size=8, hidden_size=16)
            self.out = nn.Linear(16, 3)

        def forward(self, x, state=None):
            h, state = self.lstm(x, state)
            return self.out(h), state

Sequences are time-major, x (T, B, I): time, batch, input.
"""

from tinyrnn.nn import init
from tinyrnn.nn.attention import Attention, Memory
from tinyrnn.nn.cells import Cell, GRUCell, GRUState, LSTMCell, LSTMState, RNNCell, RNNState
from tinyrnn.nn.conv import TCN, Conv1d, TCNBlock
from tinyrnn.nn.layers import Dropout, Embedding, LayerNorm, Linear
from tinyrnn.nn.module import Module, ModuleList, Parameter, Sequential
from tinyrnn.nn.recurrent import GRU, LSTM, RNN, Recurrent, unroll
from tinyrnn.nn.transformer import (
    MultiHeadAttention,
    PositionalEncoding,
    Transformer,
    TransformerBlock,
    TransformerState,
)

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "TCN",
    "Attention",
    "Cell",
    "Conv1d",
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
    "MultiHeadAttention",
    "Parameter",
    "PositionalEncoding",
    "RNNCell",
    "RNNState",
    "Recurrent",
    "Sequential",
    "TCNBlock",
    "Transformer",
    "TransformerBlock",
    "TransformerState",
    "init",
    "unroll",
]
