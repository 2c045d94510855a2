"""CTC loss against PyTorch's, in value and gradient."""

import numpy as np
import pytest

import tinyrnn as tr

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install -e '.[test,oracle]'")
pytestmark = pytest.mark.oracle

T, B, V, L = 20, 5, 6, 4
TARGETS = np.array([[1, 2, 3, 4], [2, 2, 2, 9], [5, 9, 9, 9], [9, 9, 9, 9], [1, 1, 4, 4]]).T  # 9: behind the end
TARGET_LENGTHS = [4, 3, 1, 0, 4]


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("blank", [0, 5])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-9), ("float32", 5e-5)])
@pytest.mark.parametrize("lengths", [[20] * 5, [20, 7, 3, 5, 5], [20, 4, 3, 1, 5], [20, 0, 0, 1, 3]], ids=str)
def test_losses_and_gradients(lengths, dtype, tolerance, blank, reduction):
    """Where no path can spell the target, PyTorch's gradient is NaN, so those losses are counted as 0 for both."""
    targets = np.where(TARGETS == 5, 0, TARGETS) if blank == 5 else TARGETS
    logits = tr.randn(T, B, V, dtype=dtype, requires_grad=True)
    logits_t = torch.tensor(logits.numpy(), requires_grad=True)
    loss = tr.ctc_loss(logits, targets, lengths, TARGET_LENGTHS, blank, reduction, zero_infinity=True)
    given = torch.tensor(np.where(targets == 9, 1, targets).T), torch.tensor(lengths), torch.tensor(TARGET_LENGTHS)
    loss_t = torch.nn.functional.ctc_loss(logits_t.log_softmax(-1), *given, blank, reduction, zero_infinity=True)
    np.testing.assert_allclose(loss.numpy(), loss_t.detach().numpy(), rtol=tolerance, atol=tolerance)
    loss.sum().backward()
    loss_t.sum().backward()
    np.testing.assert_allclose(logits.grad.numpy(), logits_t.grad.numpy(), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("lengths", [[20, 4, 3, 1, 5], [20, 0, 0, 0, 3]], ids=str)
def test_what_no_path_can_spell_is_infinite(lengths):
    logits = tr.randn(T, B, V, dtype="float64")
    loss = tr.ctc_loss(logits, TARGETS, lengths, TARGET_LENGTHS, reduction="none")
    given = torch.tensor(np.where(TARGETS == 9, 1, TARGETS).T), torch.tensor(lengths), torch.tensor(TARGET_LENGTHS)
    log_p = torch.tensor(logits.numpy()).log_softmax(-1)
    expected = torch.nn.functional.ctc_loss(log_p, *given, reduction="none").numpy()
    assert np.isinf(expected).any()
    np.testing.assert_allclose(loss.numpy(), expected, rtol=1e-9)
