"""Convolution over time against PyTorch's, in value and every gradient."""

import itertools

import numpy as np
import pytest

import tinyrnn as tr
from tinyrnn import nn

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install -e '.[test,oracle]'")
pytestmark = pytest.mark.oracle

T, B, I, O = 13, 3, 4, 5
each_precision = pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-10), ("float32", 2e-5)])


def compare(ours, theirs, tolerance):
    np.testing.assert_allclose(ours.numpy(), theirs.detach().numpy(), rtol=tolerance, atol=tolerance)


def twin(x):
    return torch.tensor(x.numpy(), requires_grad=True)


def convolved(x, W, b, dilation, stride, causal):
    """PyTorch's convolution of (T, B, I) with W (width, I, O)."""
    x = torch.nn.functional.pad(x.permute(1, 2, 0), ((len(W) - 1) * dilation if causal else 0, 0))
    return torch.nn.functional.conv1d(x, W.permute(2, 1, 0), b, stride, dilation=dilation).permute(2, 0, 1)


@each_precision
@pytest.mark.parametrize(
    ("width", "dilation", "stride", "causal"), list(itertools.product([1, 2, 5], [1, 3], [1, 2], [False, True]))
)
def test_conv1d(width, dilation, stride, causal, dtype, tolerance):
    conv = nn.Conv1d(I, O, width, dilation=dilation, stride=stride, causal=causal, dtype=dtype)
    conv.b.assign(tr.randn(O, dtype=dtype))
    x = tr.randn(T, B, I, dtype=dtype, requires_grad=True)
    x_t, W_t, b_t = twin(x), twin(conv.W), twin(conv.b)
    y, y_t = conv(x), convolved(x_t, W_t, b_t, dilation, stride, causal)
    compare(y, y_t, tolerance)
    gy = tr.randn(*y.shape, dtype=dtype)
    y.backward(gy)
    y_t.backward(twin(gy))
    for ours, theirs in ((x, x_t), (conv.W, W_t), (conv.b, b_t)):
        compare(ours.grad, theirs.grad, 10 * tolerance)


@each_precision
def test_tcn(dtype, tolerance):
    layer, relu = nn.TCN(I, O, num_layers=3, dtype=dtype), torch.relu
    x = tr.randn(T, B, I, dtype=dtype, requires_grad=True)
    x_t, parameters_t = twin(x), {name: twin(p) for name, p in layer.named_parameters()}
    y_t = x_t
    for k in range(3):
        W_1, b_1, W_2, b_2, *residual = (p for name, p in parameters_t.items() if name.startswith(f"blocks.{k}."))
        h = relu(convolved(y_t, W_1, b_1, 2**k, 1, True))
        y_t = relu((y_t @ residual[0] if residual else y_t) + relu(convolved(h, W_2, b_2, 2**k, 1, True)))
    y, _ = layer(x)
    compare(y, y_t, tolerance)
    gy = tr.randn(*y.shape, dtype=dtype)
    y.backward(gy)
    y_t.backward(twin(gy))
    compare(x.grad, x_t.grad, 10 * tolerance)
    for name, parameter in layer.named_parameters():
        compare(parameter.grad, parameters_t[name].grad, 10 * tolerance)
