"""The exercises: solutions pass, skeletons and mistakes are told in words, and nothing a learner writes hangs."""

import ast
import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import tinyrnn as tr
from tinyrnn.learn.__main__ import main
from tinyrnn.learn.checking import Mistake, agree, parts_of
from tinyrnn.learn.exercise import exercises_by_name
from tinyrnn.learn.grading import grade, grade_apart, show

EXERCISES = exercises_by_name()

# Solutions with one mistake each: what is replaced by what, and words of the first verdict that is not right.
MISTAKES = {
    "gradient": [
        ("gy * ops.sigmoid(x)", "ops.sigmoid(x)", "gy is missing: by the chain rule"),
        ("gy * ops.sigmoid(x)", "gy * ops.sigmoid(x) * (1 - ops.sigmoid(x))", "with the derivative of σ"),
        ("gy * ops.sigmoid(x)", "gy * ops.exp(x)", "the 1/u is missing"),
        ("gy * ops.sigmoid(x)", "gy / (1 + ops.exp(x))", "the u' = eˣ is missing"),
        ("gy * ops.sigmoid(x)", "gy", "as if softplus(x) were x"),
        ("gy * ops.sigmoid(x)", "gy * (1 - y**2)", "with the derivative of tanh"),
        ("gy * ops.sigmoid(x)", "gy / (1 + np.exp(-x))", "not NumPy's functions"),
        ("xp.maximum(x, 0) + xp.log(1 + xp.exp(-xp.abs(x)))", "xp.log(1 + xp.exp(x))", "at x = 1000 eˣ overflows"),
        ("xp.maximum(x, 0) + xp.log(1 + xp.exp(-xp.abs(x)))", "xp.log(xp.exp(x))", "the 1 is missing"),
        ("xp.maximum(x, 0) + xp.log(1 + xp.exp(-xp.abs(x)))", "1 + xp.exp(x)", "the logarithm is missing"),
        ("xp.maximum(x, 0) + xp.log(1 + xp.exp(-xp.abs(x)))", "xp.maximum(x, 0)", "that is relu(x)"),
        ("return xp.maximum", "xp.maximum", "forward(np, x) is None: does your function end with `return`?"),
    ],
    "parity": [
        ("np.tanh(x @ W + b)", "x @ W + b", "the tanh is missing"),
        ("np.tanh(x @ W + b)", "np.tanh(x @ W)", "b is missing"),
        ("np.tanh(x @ W + b)", "np.tanh(x @ W.T + b)", "without a transpose"),
        ("np.tanh(x @ W + b)", "np.tanh(x @ W) + b", "before the tanh"),
        ("[[1.0], [-1.0]]", "[[1.0], [0.0]]", "that is 'or'", "np.array([-1.0])", "np.array([0.0])"),
        ("np.array([-1.0])", "np.array([1.0])", "for the bits 0 0 the second layer gives"),
        ("return W_1, b_1, W_2, b_2", "return W_1, b_1, -W_2, -b_2", "the other way round"),
        ("[[1.0], [-1.0]]", "[1.0, -1.0]", "W_2 has shape (2,); expected (2, 1)"),
        ("return W_1, b_1, W_2, b_2", "return W_1, W_2", "expected a tuple of 4: W_1, b_1, W_2, b_2"),
        ("h + x - 2 * h * x", "h + x", "it counts the ones"),
        ("h + x - 2 * h * x", "max(h, x)", "it remembers that there was a 1"),
        ("h + x - 2 * h * x", "x", "it forgets h"),
        ("h + x - 2 * h * x", "h", "it does not look at x"),
        ("h + x - 2 * h * x", "1 - h - x + 2 * h * x", "it turns h over for a 0"),
        ("h + x - 2 * h * x", "h * x", "that is 'both'"),
    ],
    "cell": [
        ("0.75 * state.h + 0.25 * tr.tanh(", "tr.tanh(", "it keeps nothing of the state"),
        ("0.75 * state.h + 0.25", "0.25 * state.h + 0.75", "the two shares are exchanged"),
        ("0.75 * state.h + 0.25 * tr", "0.75 * state.h + tr", "the new part counts whole"),
        ("0.75 * state.h + 0.25", "0.25", "but ¾ h is missing"),
        ("z + state.h @ self.W_h", "z", "h W_h is missing"),
        ("z + state.h @ self.W_h", "z + state.h", "h stands in the place of h W_h"),
        ("z + state.h @ self.W_h", "z + state.h @ self.W_h.T", "W_h is transposed"),
        ("tr.tanh(", "(", "the tanh is missing"),
        ("nn.RNNState(0.75", "(0.75", "step returns Tensor; expected the state"),
        ("@ self.W_h", "@ self.W_h.numpy()", "no step reads the tensor self.W_h"),
        (
            "z + state.h @",
            "z + state.h.detach() @",
            "x_0 gets no gradient",
            "0.75 * state.h ",
            "0.75 * state.h.detach() ",
        ),
        ("z + state.h @", "z + state.h.detach() @", "so a part of the history is cut off"),
    ],
    "bptt": [
        ("    for t in range(len(x)):\n", "    for t in range(0):\n", "h at [1, 0] is 0; expected"),
        ("return h\n", "return h[1:]\n", "h_0 is missing"),
        ("h[t] @ W_h + b", "h[0] @ W_h + b", "each step is alone"),
        ("h[t] @ W_h + b", "h[t] @ W_h.T + b", "W_h is transposed"),
        ("h[t] @ W_h + b", "h[t] @ W_h", "b is missing"),
        ("+ from_after", "", "it misses the contribution of the steps before each loss"),
        ("gb += ga", "gb = ga", "∂L/∂b: it has the contribution of the first step alone"),
        (
            "gW_h += np.outer(h[t], ga)",
            "gW_h = np.outer(h[t], ga)",
            "∂L/∂W_h: it has the contribution of the first step",
        ),
        (
            "gW_x += np.outer(x[t], ga)",
            "gW_x = np.outer(x[t], ga)",
            "∂L/∂W_x: it has the contribution of the first step",
        ),
        ("in reversed(range(len(x)))", "in [len(x) - 1]", "the contribution of the last step alone"),
        ("gh * (1 - h[t + 1] ** 2)", "gh", "the tanh is missing on the way back"),
        ("ga @ W_h.T", "ga @ W_h", "W_h stands in the place of W_hᵀ"),
        ("h[t + 1] - y[t]", "y[t] - h[t + 1]", "the sign is wrong"),
        ("np.outer(h[t], ga)", "np.outer(h[t + 1], ga)", "in the share of a step stands h_t"),
        ("np.outer(h[t], ga)", "np.outer(ga, h[t])", "it is transposed"),
        ("h[t + 1] - y[t] + from_after", "2 * (h[t + 1] - y[t]) + from_after", "it is twice as large"),
        (
            "h[t + 1] - y[t] + from_after",
            "h[t] - y[t] + from_after",
            "step t has made h[t + 1]",
            "1 - h[t + 1]",
            "1 - h[t]",
        ),
        ("in reversed(range(len(x)))", "in range(len(x))", "the steps are gone through forwards"),
        ("return gW_x, gW_h, gb", "return gb, gW_x, gW_h", "that is ∂L/∂W_h; the order is"),
        ("return gW_x, gW_h, gb", "return gW_h, gW_x, gb", "that is ∂L/∂W_x; the order is"),
        ("h[t + 1] - y[t] + from_after", "from_after + (h[-1] - y[-1]) * (t == len(x) - 1)", "the last loss alone"),
        ("return gW_x, gW_h, gb", "return gW_x, gW_h", "expected a tuple of 3: ∂L/∂W_x, ∂L/∂W_h, ∂L/∂b"),
    ],
    "sampler": [
        ("return p / p.sum()", "return p", "the probabilities sum to 1.78, and not to 1"),
        (
            "np.exp((logits - logits.max()) / temperature)",
            "logits / temperature",
            "those are the logits over their sum",
        ),
        ("/ temperature)", "* temperature)", "it is the other way round"),
        ("/ temperature)", ")", "the temperature changes nothing"),
        (
            "return p / p.sum()",
            "return p / p.sum() / temperature",
            "the temperature divides the probabilities",
            ") / temperature)",
            "))",
        ),
        ("[:-top_k]", "[top_k:]", "those are the k least likely"),
        ("top_k is not None", "False", "top_k changes nothing"),
        ("return p / p.sum()", "return p / np.exp(logits).sum()", "in the sum below as well", "- logits.max()", ""),
        (
            "p[np.argsort(p)[:-top_k]] = 0",
            "p = np.sort(p)[::-1][:top_k]",
            "the symbols have lost their places",
        ),
        ("p[np.argsort(p)[:-top_k]] = 0", "p[np.argsort(p)[:-top_k]] = np.exp(0 - logits.max())", "e⁰ is 1"),
        (
            "    if top_k",
            "    p = p / p.sum()\n    if top_k",
            "does not sum to 1: divide by the sum after",
            "p / p.sum()\n\n",
            "p\n\n",
        ),
        ("(logits - logits.max())", "logits", "e¹⁰⁰⁰ overflows"),
        ("    p = np", "    logits -= logits.max()\n    p = np", "the logits that were given have changed"),
        ("np.cumsum(p) <= u", "np.cumsum(p) < u", "ask for cumsum(p) <= u"),
        ("int((np.cumsum(p) <= u).sum())", "int(p.argmax())", "it is always the likeliest"),
        ("int((np.cumsum(p) <= u).sum())", "int(np.random.choice(len(p), p=p))", "u is the random number"),
        (
            "int((np.cumsum(p) <= u).sum())",
            "int((np.cumsum(p) <= u).sum()) if u < 0.9 else None",
            "is None: does it end",
        ),
        ("(np.cumsum(p) <= u).sum()", "(np.cumsum(p) <= u).sum() + 1", "symbols count from 0"),
        ("(np.cumsum(p) <= u).sum()", "(np.cumsum(p) <= u).sum() - 1", "each is one too low"),
        ("(np.cumsum(p) <= u).sum()", "np.argmax(p > u)", "the first symbol whose own p is above u"),
    ],
    "clipping": [
        (
            "math.sqrt(sum((g * g).sum() for g in gradients))",
            "sum((g * g).sum() for g in gradients)",
            "the root is missing",
        ),
        (
            "math.sqrt(sum((g * g).sum() for g in gradients))",
            "sum(math.sqrt((g * g).sum()) for g in gradients)",
            "add up the squares",
        ),
        ("scale for g in gradients], norm", "scale for g in gradients], min(norm, max_norm)", "from before"),
        ("[g * scale for g in gradients]", "gradients", "nothing was clipped"),
        (
            "[g * scale for g in gradients]",
            "[g * min(1, max_norm / math.sqrt((g * g).sum())) for g in gradients]",
            "by a norm of its own",
        ),
        ("[g * scale for g in gradients]", "[g.clip(-max_norm, max_norm) for g in gradients]", "each element was cut"),
        ("else max_norm / norm", "else 1 / norm", "they were scaled to norm 1"),
        ("1.0 if norm <= max_norm else max_norm / norm", "max_norm / norm if norm else 1", "they were made longer"),
        ("1.0 if norm <= max_norm else max_norm / norm", "np.minimum(1, max_norm * norm / norm**2)", "0 / 0 is NaN"),
        (
            "    return [g * scale for g in gradients]",
            "    for g in gradients:\n        g *= scale\n    return gradients",
            "they have changed",
        ),
        ("return [g * scale for g in gradients], norm", "return norm", "expected a tuple of 2"),
        ("], norm\n", "], [math.sqrt((g * g).sum()) for g in gradients]\n", "there is one norm for each array"),
        ("for g in gradients))\n", "for g in gradients[-1:]))\n", "the norm of the last array alone"),
        ("else max_norm / norm", "else 1 / max_norm", "they were divided by max_norm"),
        ("sum((g * g).sum() for", "sum(abs(g).sum() for", "the elements are not squared"),
        ("math.sqrt(sum((g * g).sum() for g in gradients))", "sum(abs(g).sum() for g in gradients)", "absolute values"),
        (
            "math.sqrt(sum((g * g).sum() for g in gradients))",
            "max(abs(g).max() for g in gradients)",
            "that is the largest element",
        ),
        ("(g * g).sum()", "(g * g).mean()", "the squares were averaged"),
        ("else max_norm / norm", "else norm / max_norm", "the scale is upside down"),
        ("[g * scale for", "[g - max(0, norm - max_norm) for", "something was subtracted"),
        ("[g * scale for g in gradients], norm", "norm, [g * scale for g in gradients]", "the results are exchanged"),
    ],
    "lstm": [
        ("i, f, g, o =", "i, f, o, g =", "f where f and o where g"),
        ("i, f, g, o =", "f, i, g, o =", "f stands where i belongs, i where f"),
        ("i, f, g, o =", "i, o, f, g =", "g where f and o where g; it is i f g o"),
        ("tr.tanh(g)", "tr.sigmoid(g)", "g goes through σ"),
        ("tr.tanh(g)", "g", "g goes through nothing"),
        ("tr.sigmoid(f) * c + ", "", "the old memory is missing"),
        ("tr.sigmoid(f) * c", "c", "all of the old memory stays"),
        ("tr.sigmoid(f) * c", "tr.sigmoid(f) * h", "h stands where the memory belongs"),
        ("tr.sigmoid(f) * c + tr.sigmoid(i)", "f * c + i", "the two gates are not σ"),
        ("tr.sigmoid(f) * c + tr.sigmoid(i)", "tr.tanh(f) * c + tr.tanh(i)", "the gates go through tanh"),
        ("tr.sigmoid(o) * tr.tanh(c), c", "c, tr.sigmoid(o) * tr.tanh(c)", "the results are exchanged"),
        ("tr.sigmoid(o) * tr.tanh(c), c", "tr.sigmoid(o) * c, c", "h': tanh is missing"),
        ("tr.sigmoid(o) * tr.tanh(c), c", "tr.tanh(c), c", "the output gate is missing"),
        ("tr.sigmoid(o) * tr.tanh(c), c", "tr.tanh(o) * tr.tanh(c), c", "o goes through tanh"),
        ("tr.sigmoid(o) * tr.tanh(c), c", "o * tr.tanh(c), c", "o goes through nothing"),
        ("    c = ", "    old = c\n    c = ", "it is made of the old memory", "tr.tanh(c), c", "tr.tanh(old), c"),
        ("tr.sigmoid(o) * tr.tanh(c), c", "(tr.sigmoid(o) * tr.tanh(c)).detach(), c", "the result has no history"),
        ("x @ W_x + b + h @ W_h, 4)", "x @ W_x + b + h @ W_h, 4, axis=0)", "ShapeError"),
        ("tr.sigmoid(f) * c + tr.sigmoid(i) * tr.tanh(g)", "f * c + i * g", "σ and tanh are missing"),
        ("tr.tanh(g)", "tr.tanh(tr.sigmoid(g))", "through σ and then through tanh"),
        ("tr.sigmoid(i)", "(1 - tr.sigmoid(f))", "the input gate has a block of its own"),
        ("* c + tr.sigmoid(i)", "* c * tr.sigmoid(i)", "the two parts are multiplied"),
        ("tr.sigmoid(i) * tr", "tr.sigmoid(i) + tr", "σ(i) is added to tanh(g)"),
        ("x @ W_x + b + h @ W_h", "x @ W_x + h @ W_h", "b is missing in the blocks"),
        ("x @ W_x + b + h @ W_h", "x @ W_x + b", "h W_h is missing in the blocks"),
        ("x @ W_x + b + h @ W_h", "b + h @ W_h", "x W_x is missing in the blocks"),
        ("x @ W_x + b + h @ W_h", "x @ W_x + b + c @ W_h", "c stands where h belongs in the blocks"),
        ("tr.sigmoid(o) * tr.tanh(c), c", "tr.sigmoid(o) * tr.sigmoid(c), c", "c' goes through σ"),
        ("tr.sigmoid(o) * tr.tanh(c), c", "tr.tanh(tr.sigmoid(o) * c), c", "the tanh is of the product"),
    ],
    "last_step": [
        ("out[lengths - 1, np.arange(len(lengths))]", "out[-1]", "that is step T − 1 for all"),
        ("out[lengths - 1, np.arange(len(lengths))]", "out[0]", "that is the first step"),
        ("out[lengths - 1, np.arange(len(lengths))]", "out.mean(0)", "that is the mean over all steps"),
        (
            "out[lengths - 1, np.arange(len(lengths))]",
            "(out * (np.arange(len(out))[:, None] < lengths)[:, :, None]).sum(0) / lengths[:, None]",
            "that is the mean over the steps",
        ),
        (
            "linear(last_valid(out, lengths)), classes)",
            "linear(out), np.broadcast_to(classes, out.shape[:2]))",
            "that is the loss at all steps",
        ),
        ("out[lengths - 1, np.arange(len(lengths))]", "out.max(0)", "the largest over the steps"),
        ("out[lengths - 1, np.arange(len(lengths))]", "out[lengths - 1]", "give the sequence too"),
        ("[lengths - 1,", "[lengths,", "one step too far"),
        ("[lengths - 1,", "[lengths - 2,", "one step too early"),
        ("[lengths - 1,", "[np.minimum(lengths, len(out) - 1),", "one step too late"),
        (
            "out[lengths - 1, np.arange(len(lengths))]",
            "(out * (np.arange(len(out))[:, None] == lengths - 1)[:, :, None]).sum(0)",
            "it changes with the padding",
        ),
        (
            "tr.cross_entropy(linear(last_valid(out, lengths)), classes)",
            "tr.cross_entropy(linear(out[-1]), classes)",
            "padding included",
        ),
        (
            "(last_valid(out, lengths)), classes)",
            "(last_valid(out, lengths)), classes, reduction='sum')",
            "that is the sum",
        ),
        (
            "(last_valid(out, lengths)), classes)",
            "(last_valid(out, lengths)), classes, reduction='none')",
            "one loss for each",
        ),
        ("linear(last_valid(out, lengths))", "tr.softmax(linear(last_valid(out, lengths)))", "softmax was taken twice"),
        ("linear(last_valid(out, lengths))", "linear(last_valid(out.detach(), lengths))", "Is there a detach()"),
        ("out[lengths - 1, np.arange(len(lengths))]", "out.sum(0)", "the sum over all steps"),
        ("out[lengths - 1, np.arange(len(lengths))]", "out[lengths - 1, 0]", "those are all of sequence 0"),
        (
            "out[lengths - 1, np.arange(len(lengths))]",
            "out[np.arange(len(lengths)), lengths - 1]",
            "the indices are exchanged",
        ),
        (", classes)\n", ", classes) / len(classes)\n", "divided by B once more"),
        (", classes)\n", ", classes).item()\n", "return no .item()"),
        ("return tr.cross", "return -tr.cross", "the sign is wrong"),
        (
            "tr.cross_entropy(linear(last_valid(out, lengths)), classes)",
            "1 - tr.softmax(linear(last_valid(out, lengths)))[np.arange(len(classes)), classes].mean()",
            "that is 1 − p",
        ),
        (
            "tr.cross_entropy(linear(last_valid(out, lengths)), classes)",
            "np.mean(tr.argmax(linear(last_valid(out, lengths)), axis=-1).numpy() != classes)",
            "how many answers were wrong",
        ),
    ],
    "masks": [
        ("[:, None] < lengths", "[:, None] <= lengths", "t <= length"),
        ("[:, None] < lengths", "[:, None] >= lengths", "the other way round"),
        ("[:, None] < lengths", "< lengths[:, None]", "its axes are (B, T)"),
        ("[:, None] < lengths", "[:, None] < lengths - 1", "it is one step too short"),
        ("return np.arange(T)[:, None] < lengths", "return (np.arange(T)[:, None] < lengths) * 1", "expected bool"),
        (
            "tr.where(going[t], cell(x[t], nn.RNNState(h)).h, h)",
            "cell(x[t], nn.RNNState(h)).h",
            "the last state of sequence 0",
        ),
        (
            "tr.where(going[t], h, 0.0)",
            "cell(x[t], nn.RNNState(h)).h",
            "out at t=2 depends on the padding; sequence 0 is 2 long",
        ),
        ("tr.where(going[t], h, 0.0)", "h", "the last state goes on past the end"),
        (
            "tr.where(going[t], cell(x[t], nn.RNNState(h)).h, h)",
            "tr.where(going[t], cell(x[t], nn.RNNState(h)).h, 0.0)",
            "the state stays as it was",
        ),
        (
            "tr.where(going[t], cell(x[t], nn.RNNState(h)).h, h)",
            "cell(x[t], nn.RNNState(h)).h * going[t] + h * ~going[t]",
            "NaN · 0 is NaN",
        ),
        ("tr.stack(out), h", "tr.stack(out, axis=1), h", "out has shape (4, 5, 3); expected (5, 4, 3)"),
        ("/ going.sum()", "/ losses.size", "it divides by T · B"),
        ("/ going.sum()", "", "that is their sum"),
        ("/ going.sum()", "/ going.shape[1]", "it divides by B"),
        ("tr.where(going, losses, 0.0).sum() / going.sum()", "losses.mean()", "padding included"),
        ("tr.where(going, losses, 0.0).sum()", "(losses * going).sum()", "NaN · 0 is NaN"),
        ("return np.arange(T)[", "return np.arange(lengths.max())[", "as long as the longest sequence"),
        ("nn.RNNState(h)).h, h)", "cell.initial_state(len(h))).h, h)", "each step begins from zeros"),
        (
            "        h = tr.where(going[t], cell(x[t], nn.RNNState(h)).h, h)\n",
            "        before, h = h, tr.where(going[t], cell(x[t], nn.RNNState(h)).h, h)\n",
            "it is one step late",
            "tr.where(going[t], h, 0.0)",
            "tr.where(going[t], before, 0.0)",
        ),
        ("/ going.sum()", "/ len(going)", "it divides by T"),
        ("tr.where(going, losses, 0.0).sum() / going.sum()", "losses[~going].mean()", "losses of the padding"),
        (
            "tr.where(going, losses, 0.0).sum() / going.sum()",
            "(tr.where(going, losses, 0.0).sum(0) / going.sum(0)).mean()",
            "0 / 0 is NaN",
        ),
        (
            "tr.where(going, losses, 0.0).sum() / going.sum()",
            "(tr.where(going, losses, 0.0).sum(0) / np.maximum(going.sum(0), 1)).mean()",
            "the mean of the means",
        ),
    ],
    "attention": [
        (" / math.sqrt(query.shape[-1])", "", "not divided by √K"),
        ("math.sqrt(query.shape[-1])", "query.shape[-1]", "divided by K, and not by √K"),
        ("math.sqrt(query.shape[-1])", "math.sqrt(len(query))", "divided by √B"),
        ("math.sqrt(query.shape[-1])", "math.sqrt(len(keys))", "divided by √Tk"),
        (
            "tr.softmax(tr.where(mask, scores, -math.inf), axis=0)",
            "tr.where(mask, tr.exp(scores), 0.0)",
            "they do not sum to 1",
        ),
        (
            "return tr.sum(tr.expand_dims(weights, -1) * values, axis=0), weights",
            "return weights, tr.sum(tr.expand_dims(weights, -1) * values, axis=0)",
            "the results are exchanged",
        ),
        ("tr.where(mask, scores, -math.inf)", "scores", "the mask is not used"),
        ("tr.where(mask, scores, -math.inf)", "tr.where(mask, scores, 0.0)", "e⁰ is 1"),
        ("tr.where(mask, scores, -math.inf)", "tr.where(mask, -math.inf, scores)", "it looks where the mask is False"),
        (
            "tr.softmax(tr.where(mask, scores, -math.inf), axis=0)",
            "tr.softmax(scores, axis=0) * mask",
            "comes after the softmax",
        ),
        (
            "tr.softmax(tr.where(mask, scores, -math.inf), axis=0)",
            "tr.where(mask, scores, -math.inf)",
            "the softmax is missing",
        ),
        ("-math.inf), axis=0)", "-math.inf), axis=1)", "the softmax is over the batch"),
        ("* values, axis=0)", "* keys, axis=0)", "the keys stand in the place of the values"),
        (
            "tr.sum(tr.expand_dims(weights, -1) * values, axis=0)",
            "tr.mean(tr.expand_dims(weights, -1) * values, axis=0)",
            "it is the sum",
        ),
        ("tr.sum(tr.expand_dims(weights, -1) * values, axis=0)", "tr.expand_dims(weights, -1) * values", "not summed"),
        ("totals[:, None] + log_p", "log_p", "add totals to log_p"),
        ("totals[:, None] + log_p", "totals + log_p", "each belongs to a row"),
        ("totals[:, None] + log_p", "totals[:, None] * log_p", "logarithms are added"),
        ("argsort(-extended", "argsort(extended", "those are the least likely"),
        ("for k in best", "for k in best[::-1]", "they come least likely first"),
        (
            "(int(k) // log_p.shape[1], int(k) % log_p.shape[1])",
            "divmod(int(k), log_p.shape[1])[::-1]",
            "(symbol, hypothesis)",
        ),
        (
            "[(int(k) // log_p.shape[1], int(k) % log_p.shape[1]) for k in best]",
            "[(n, int(log_p[n].argmax())) for n in np.argsort(-extended.max(1))]",
            "the best symbol of each hypothesis",
        ),
        ("for k in best]", "for k in best[:4]]", "a width of 100 should keep all of them"),
        (
            "[(int(k) // log_p.shape[1], int(k) % log_p.shape[1]) for k in best]",
            "[divmod(int(k), len(totals)) for k in best]",
            "divided by n; divide it by V",
        ),
        (
            "[(int(k) // log_p.shape[1], int(k) % log_p.shape[1]) for k in best]",
            "[divmod(int(k), width) for k in best]",
            "divided by the width; divide it by V",
        ),
        (
            "[(int(k) // log_p.shape[1], int(k) % log_p.shape[1]) for k in best]",
            "[(n, int(k)) for n in range(len(totals)) for k in np.argsort(-log_p[n], kind='stable')[:width]]",
            "`width` for each hypothesis",
        ),
        (
            "[(int(k) // log_p.shape[1], int(k) % log_p.shape[1]) for k in best]",
            "[(int(totals.argmax()), int(k)) for k in np.argsort(-log_p[totals.argmax()], kind='stable')[:width]]",
            "only the best hypothesis was extended",
        ),
        ("return [(", "return [[", "expected a list of pairs", "log_p.shape[1]) for", "log_p.shape[1]] for"),
    ],
    "convolution": [
        ("((width - 1) * dilation, 0)", "(0, (width - 1) * dilation)", "it looks ahead: y[0] depends on x[2]"),
        (
            "((width - 1) * dilation, 0)",
            "((width - 1) * dilation // 2, (width - 1) * dilation // 2)",
            "it looks ahead: y[0]",
        ),
        (
            "    x = tr.pad(x, (((width - 1) * dilation, 0), (0, 0), (0, 0)))\n",
            "    T -= (width - 1) * dilation\n",
            "y has 5 steps and x 7",
        ),
        ("@ W[k]", "@ W[width - 1 - k]", "the weights are the wrong way round"),
        ("    y = b\n", "    y = 0\n", "b is missing"),
        ("@ W[k]", "@ W[k] + b", "once for each k", "    y = b\n", "    y = 0\n"),
        ("x[k * dilation : k * dilation + T]", "x[k : k + T]", "the steps do not"),
        ("(width - 1) * dilation, 0)", "width * dilation, 0)", "y: it is one step late"),
        ("(width - 1) * dilation, 0)", "width * dilation - 1, 0)", "y with dilation=2: it is one step late"),
        (
            "    x = tr.pad(x, (((width - 1) * dilation, 0), (0, 0), (0, 0)))\n",
            "",
            "an index below 0 would count from the end",
            "x[k * dilation : k * dilation + T]",
            "tr.stack([x[t - (width - 1 - k) * dilation] for t in range(T)])",
        ),
        ("    return y", "        return y", "is the `return` inside the loop?"),
        ("in range(width)", "in range(width - 1)", "the last term, with W[width − 1], is missing"),
        ("in range(width)", "in range(1, width)", "the first term, with W[0], is missing"),
        ("y = y + x[", "y = x[", "only the last k is in it"),
        ("len(W), len(x)\n", "len(W), len(x)\n    dilation = 1\n", "the dilation is not used"),
        (
            "((width - 1) * dilation, 0)",
            "(width - 1, 0)",
            "there are too few zeros before x",
            "len(W), len(x)\n",
            "len(W), len(x) - (len(W) - 1) * (dilation - 1)\n",
        ),
        (
            "((width - 1) * dilation, 0)",
            "(width - 1, (width - 1) * (dilation - 1))",
            "y with dilation=2: it looks ahead",
        ),
        ("    return y", "    return tr.tensor(y.numpy())", "y has no history"),
    ],
    "own_op": [
        ("gy * (s + beta", "(s + beta", "∂L/∂x: gy is missing"),
        ("gy * (s + beta * x * s * (1 - s))", "gy * s", "the share of the first alone"),
        ("gy * (s + beta * x * s * (1 - s))", "gy * beta * x * s * (1 - s)", "the share of the second alone"),
        ("gy * (s + beta * x * s", "gy * (s + x * s", "the inner derivative is missing"),
        ("gy * (s + beta * x * s * (1 - s))", "gy * s * (1 - s)", "that is the derivative of σ alone"),
        ("(x_rule, beta_rule)", "(beta_rule, x_rule)", "the two rules are exchanged"),
        ("gy * x * x", "x * x", "∂L/∂β: gy is missing"),
        ("gy * x * x", "gy * x", "an x is missing"),
        ("gy * x * x", "gy * beta * x", "the inner derivative of βx by β is x, not β"),
        ("gy * x * x", "gy", "that is gy · σ(1 − σ)"),
        ("0.5 * xp.tanh(0.5 * beta * x) + 0.5", "tr.sigmoid(beta * x)", "`forward` computes with what `xp` has"),
        ("s = ops.sigmoid", "s = tr.sigmoid", "a rule with what `ops` has"),
        ("x * (0.5 * xp.tanh(0.5 * beta * x) + 0.5)", "x / (1 + np.exp(-beta * x))", "`forward` has `xp`"),
        ('("x beta", "x beta")', '(("x", "beta"), ("x", "beta"))', "a string for each operand"),
        ('("x beta", "x beta")', '("x", "x beta")', "a rule reads what is not saved for it"),
        ("gy * x * x * s * (1 - s)", "gy * x * x * np.asarray(s) * (1 - s)", "gradcheck: order 2"),
        ("0.5 * beta * x", "0.5 * x", "β is missing"),
        ("return x * (0.5", "return (0.5", "the x in front is missing"),
        ("return x * (0.5", "return beta * x * (0.5", "that is βx σ(βx)"),
        ("    return tr.primitive", "    tr.primitive", "make() returns NoneType"),
    ],
    "fused": [
        ("return tr.where(x > 0, x, ", "if x > 0:\n        return x\n    return (", "it looks at values"),
        ("return tr.where(x > 0, x, ", "return (x if x.numpy().min() > 0 else ", "values"),
        ("tr.minimum(x, 0.0)", "x", "the branch that is not chosen overflows"),
        (
            "tr.where(x > 0, x, alpha * (tr.exp(tr.minimum(x, 0.0)) - 1))",
            "(x > 0) * x + (x <= 0) * alpha * (tr.exp(x) - 1)",
            "do not multiply by a mask",
        ),
        ("tr.exp(tr.minimum(x, 0.0))", "np.exp(float(x))", "it looks at values"),
        (
            "tr.where(x > 0, x, alpha * (tr.exp(tr.minimum(x, 0.0)) - 1))",
            "tr.maximum(x, alpha * (tr.exp(x) - 1))",
            "the larger of the two branches",
        ),
        ("tr.exp(tr.minimum(x, 0.0)) - 1", "1 - tr.exp(tr.minimum(x, 0.0))", "the sign is wrong below 0"),
        ("@tr.fused\n", "", "the line @tr.fused above it is missing"),
        ("alpha * (tr", "(tr", "α is missing"),
        ("tr.exp(tr.minimum(x, 0.0)) - 1)", "tr.exp(tr.minimum(x, 0.0)))", "the −1 is missing"),
        (
            "alpha * (tr.exp(tr.minimum(x, 0.0)) - 1)",
            "alpha * tr.exp(tr.minimum(x, 0.0)) - 1",
            "outside of the brackets",
        ),
        ("tr.where(x > 0, x, alpha", "tr.where(x > 0, alpha * x, alpha", "α multiplies both"),
        ("tr.where(x > 0, x, alpha * (tr.exp(tr.minimum(x, 0.0)) - 1))", "tr.relu(x)", "that is relu(x)"),
        ("tr.where(x > 0, x, alpha * (tr.exp(tr.minimum(x, 0.0)) - 1))", "x", "that is x itself"),
        (
            "tr.where(x > 0, x, alpha * (tr.exp(tr.minimum(x, 0.0)) - 1))",
            "alpha * (tr.exp(x) - 1)",
            "all elements went through",
        ),
        ("tr.where(x > 0", "tr.where(x < 0", "the two branches are exchanged", "tr.minimum(x, 0.0)", "x"),
    ],
    "gates": [
        ("for gate in target", "for gate in source", "nothing has moved"),
        ("zip(source,", "zip(target,", "the other way round", "for gate in target", "for gate in source"),
        (
            "np.concatenate([blocks[gate] for gate in target], axis)",
            "np.take(weights, [len(source) * k + source.index(g) for k in range(2) for g in target], axis)",
            "single rows or columns",
        ),
        (
            "np.concatenate([blocks[gate] for gate in target], axis)",
            "np.take(weights, [source.index(gate) for gate in target], axis)",
            "one row or column of each block",
        ),
        ("np.concatenate([blocks", "np.stack([blocks", "np.stack makes a new axis"),
        (
            "len(source), axis), strict",
            "len(source), 0), strict",
            "it went along axis 0",
            "in target], axis)",
            "in target])",
        ),
        ('("z", "r", "n")\n    kernel', '("z", "n", "r")\n    kernel', "in the order z n r; Keras has z r n"),
        ("return kernel, recurrent_kernel,", "return recurrent_kernel, kernel,", "are exchanged"),
        ("reorder(weight_ih.T, pytorch, keras, 1)", "weight_ih.T", "kernel: the gates are still in PyTorch's order"),
        ("reorder(weight_hh.T, pytorch, keras, 1)", "weight_hh.T", "recurrent_kernel: the gates are still"),
        ("reorder(weight_ih.T, pytorch, keras, 1)", "reorder(weight_ih, pytorch, keras, 0)", "it is not transposed"),
        (
            "reorder(weight_hh.T, pytorch, keras, 1)",
            "reorder(weight_hh.reshape(3, 9), pytorch, keras, 1)",
            "reshape does not",
        ),
        ("reorder(weight_ih.T, pytorch, keras, 1)", "weight_ih", "it is PyTorch's as it was"),
        (
            "bias = reorder(np.stack([bias_ih, bias_hh]), pytorch, keras, 1)",
            "bias = reorder(bias_ih + bias_hh, pytorch, keras, 0)",
            "added up",
        ),
        ("np.stack([bias_ih, bias_hh])", "np.stack([bias_ih + bias_hh, 0 * bias_hh])", "the sum of both, and zeros"),
        ("keras, 1)\n    return", "keras, 1).T\n    return", "stack the two as rows"),
        (
            "bias = reorder(np.stack([bias_ih, bias_hh]), pytorch, keras, 1)",
            "bias = np.concatenate([bias_ih, bias_hh])",
            "one long row, and its gates are still",
        ),
        (
            "bias = reorder(np.stack([bias_ih, bias_hh]), pytorch, keras, 1)",
            "bias = np.stack([bias_ih, bias_hh])",
            "still in PyTorch's",
        ),
        ("np.stack([bias_ih, bias_hh])", "np.stack([bias_hh, bias_ih])", "its rows are exchanged"),
        ("keras, 1)\n    return", "keras, 1).ravel()\n    return", "it is one long row"),
    ],
}


def verdicts(tmp_path, name, text, seconds=10.0):
    """Grade a text as somebody's file."""
    path = tmp_path / EXERCISES[name].file_name
    path.write_text(text, encoding="utf-8")
    return list(grade(EXERCISES[name], path, seconds))


def first_wrong(tmp_path, name, text, seconds=10.0):
    return next(verdict for verdict in verdicts(tmp_path, name, text, seconds) if verdict.outcome != "right")


def broken(name, old, new, *more):
    """The solution with a mistake in it."""
    text = "import numpy as np\n" + EXERCISES[name].solution
    for a, b in ((old, new), *zip(more[::2], more[1::2], strict=True)):
        assert a in text, a
        text = text.replace(a, b)
    return text


def test_there_is_one_exercise_for_each_chapter():
    assert [exercise.chapter for exercise in EXERCISES.values()] == list(range(1, 15))
    assert set(MISTAKES) == set(EXERCISES)
    assert min(len(mistakes) for mistakes in MISTAKES.values()) >= 3


@pytest.mark.parametrize("name", EXERCISES)
def test_a_solution_is_right(tmp_path, name):
    found = verdicts(tmp_path, name, EXERCISES[name].solution)
    assert len(found) == len(EXERCISES[name].checks) >= 4
    assert {verdict.outcome for verdict in found} == {"right"}, found
    assert len({verdict.title for verdict in found}) == len(found)


@pytest.mark.parametrize("name", EXERCISES)
def test_a_skeleton_says_what_is_to_be_written(tmp_path, name):
    skeleton = EXERCISES[name].skeleton
    found = verdicts(tmp_path, name, skeleton)
    assert {verdict.outcome for verdict in found} == {"to write"}, found
    assert skeleton.splitlines()[int(found[0].words.split()[1].rstrip(":")) - 1].strip().startswith("raise NotImpl")
    ours, theirs = ast.parse(EXERCISES[name].solution), ast.parse(skeleton)
    assert ast.get_docstring(ours) == ast.get_docstring(theirs)
    for function in ast.walk(theirs):
        if isinstance(function, ast.FunctionDef):
            assert ast.get_docstring(function)
            assert len(function.body) == 2
    assert "tinyrnn.learn." not in skeleton
    assert len(EXERCISES[name].hints) >= 3


@pytest.mark.parametrize(
    ("name", "mistake"), [(name, mistake) for name, mistakes in MISTAKES.items() for mistake in mistakes]
)
def test_a_mistake_is_told_in_its_own_words(tmp_path, name, mistake):
    old, new, words, *more = mistake
    verdict = first_wrong(tmp_path, name, broken(name, old, new, *more))
    assert words in verdict.words, verdict


# ---------------------------------------------------------------- whatever a learner writes


SOFTPLUS = EXERCISES["gradient"].solution


def test_a_loop_without_end_is_stopped_and_told_where(tmp_path):
    text = SOFTPLUS.replace("    return gy", "    while True:\n        pass\n    return gy")
    *_, last = verdicts(tmp_path, "gradient", text, seconds=0.2)
    assert (last.title, last.outcome) == ("The gradient is gy times the derivative", "stopped")
    assert "not done after 0.2 seconds; is there a loop without end?\nline " in last.words
    assert "in rule:\n    " in last.words


def test_a_loop_that_catches_every_exception_is_stopped(tmp_path):
    loop = "while True:\n    try:\n        pass\n    except Exception:\n        pass\n"
    (only,) = verdicts(tmp_path, "gradient", loop, seconds=0.2)
    assert (only.title, only.outcome) == ("your file can be imported", "stopped")
    assert "loop without end" in only.words


def test_an_error_is_told_with_the_lines_of_the_learners_file_alone(tmp_path):
    text = SOFTPLUS.replace("    return gy", "    slope = ops.sigmoidd(x)\n    return gy")
    verdict = first_wrong(tmp_path, "gradient", text)
    line = text.splitlines().index("    slope = ops.sigmoidd(x)") + 1
    assert verdict.outcome == "stopped"
    assert verdict.words.endswith(f"\nline {line}, in rule:\n    slope = ops.sigmoidd(x)")
    assert "sigmoidd" in verdict.words.splitlines()[0]
    assert "walk" not in verdict.words
    assert "File" not in verdict.words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("def forward(x:\n    pass\n", "Python cannot read line 1: "),
        ("x = 1\0\n", "null bytes"),
        ("import nothing_of_that_name\n", "ModuleNotFoundError: No module named 'nothing_of_that_name'\nline 1:"),
        ("exit()\n", "your code ends Python by exit(); leave that out"),
        ("", "it has no forward and no rule; was the name changed?"),
        ("def forward():\n    return forward()\nforward()\n", "RecursionError"),
        ("raise BaseException('odd')\n", "BaseException: odd\nline 1:"),
    ],
)
def test_a_file_that_cannot_be_imported_says_why(tmp_path, text, words):
    (only,) = verdicts(tmp_path, "gradient", text)
    assert words in only.words


def test_a_file_is_read_anew_each_time(tmp_path):
    assert first_wrong(tmp_path, "gradient", SOFTPLUS.replace("gy * ops.sigmoid(x)", "gy / ops.sigmoid(x)"))
    assert {verdict.outcome for verdict in verdicts(tmp_path, "gradient", SOFTPLUS)} == {"right"}
    assert [path.name for path in tmp_path.iterdir()] == ["01_gradient.py"]


def test_a_file_may_have_more_in_it(tmp_path):
    more = (
        "from __future__ import annotations\nfrom dataclasses import dataclass\n@dataclass\nclass More:\n    x: int\n"
    )
    assert {verdict.outcome for verdict in verdicts(tmp_path, "gradient", more + SOFTPLUS)} == {"right"}


def test_a_wrong_signature_is_told(tmp_path):
    verdict = first_wrong(
        tmp_path, "parity", EXERCISES["parity"].solution.replace("(h: float, x: float)", "(x: float)")
    )
    assert "step() takes 1 positional argument but 2 were given\nraised outside of your file" in verdict.words


def test_ctrl_c_is_the_learners(tmp_path):
    path = tmp_path / "answer.py"
    path.write_text("raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        list(grade(EXERCISES["gradient"], path))


def test_the_default_backend_and_stream_do_not_matter(tmp_path, backend):
    tr.randn(3)
    assert {verdict.outcome for verdict in verdicts(tmp_path, "cell", EXERCISES["cell"].solution)} == {"right"}


def test_only_the_first_words_are_shown(capsys, tmp_path):
    path = tmp_path / "answer.py"
    path.write_text(SOFTPLUS.replace("gy * ops.sigmoid(x)", "2 * gy"))
    assert show(grade(EXERCISES["gradient"], path), 4) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if line[:3].strip()] == ["right", "right", "wrong", "wrong", "2"]
    assert lines[-1] == "2 of 4 checks are right."
    assert sum(line.startswith(" " * 12) for line in lines) == 1


def test_a_process_that_dies_is_told(capfd, tmp_path):
    path = tmp_path / "answer.py"
    path.write_text("import os\nos._exit(7)\n")
    assert grade_apart(EXERCISES["gradient"], path) == 1
    assert "Python itself ended, with the status 7" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("error", "words"),
    [(subprocess.TimeoutExpired("check", 80), "not even Ctrl-C could stop it"), (KeyboardInterrupt, "by you")],
)
def test_what_cannot_be_waited_for_is_told(capfd, tmp_path, monkeypatch, error, words):
    def run(command, **options):
        raise error

    monkeypatch.setattr(subprocess, "run", run)
    assert grade_apart(EXERCISES["gradient"], tmp_path / "answer.py") == 1
    assert words in capfd.readouterr().out


def test_a_file_that_stops_early_has_not_passed(capsys, tmp_path):
    path = tmp_path / "answer.py"
    path.write_text("1 +")
    assert show(grade(EXERCISES["gradient"], path), 4) == 1
    assert capsys.readouterr().out.endswith("\n0 of 4 checks are right.\n")


# ---------------------------------------------------------------- agree


@pytest.mark.parametrize(
    ("given", "expected", "words"),
    [
        (None, 1.0, "y is None: does your function end with `return`?"),
        ("text", 1.0, "y is str; expected numbers"),
        ([[1, 2], [3]], 1.0, "y is list; expected numbers"),
        ([1.0, 2.0], 1.0, r"y has shape \(2,\); expected \(\)"),
        (2.0, 1.0, "y is 2; expected 1$"),
        (float("nan"), 1.0, "y is nan; expected 1"),
        ([1.0, 3.0, 4.0], [1.0, 2.0, 3.0], r"y at \[1\] is 3; expected 2; 2 of 3 elements are wrong"),
        (4.0, 1.0, "y: that is four"),
    ],
)
def test_agree_says_what_is_wrong(given, expected, words):
    with pytest.raises(Mistake, match=words):
        agree("y", given, expected, {"that is four": 4.0})


def test_agree_takes_tensors_arrays_and_numbers():
    agree("y", tr.tensor([1.0, 2.0]), [1, 2.0000001])
    agree("y", True, 1)
    agree("y", [[1.0]], tr.tensor([[1.0]]).numpy())


def test_parts_are_counted():
    with pytest.raises(Mistake, match="f returns a tuple of 3; expected a tuple of 2: a, b"):
        parts_of("f", (1, 2, 3), "a", "b")


# ---------------------------------------------------------------- the command line


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The learner's: commands are given where it is to be."""
    monkeypatch.chdir(tmp_path)
    return tmp_path / "exercises"


def test_list_shows_all_and_what_is_started(folder, capsys):
    assert main(["start", "bptt"]) == 0
    capsys.readouterr()
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines] == list(EXERCISES)
    assert [line.split()[1] for line in lines if line.endswith("started")] == ["bptt"]
    assert max(map(len, lines)) <= 100


def test_start_never_overwrites(folder, capsys):
    assert main(["start", "bptt"]) == 0
    assert "python -m tinyrnn.learn check bptt" in capsys.readouterr().out
    path = folder / "04_bptt.py"
    assert path.read_text(encoding="utf-8") == EXERCISES["bptt"].skeleton
    path.write_text("my work")
    assert main(["start", "bptt"]) == 1
    assert "stays as it is" in capsys.readouterr().out
    assert path.read_text() == "my work"


def test_another_folder_is_named_in_what_to_do_next(folder, capsys):
    assert main(["start", "gates", "--folder", "mine"]) == 0
    assert "check gates --folder mine" in capsys.readouterr().out
    assert Path("mine", "14_gates.py").exists()
    assert main(["start", "gates", "--folder", "my own"]) == 0
    assert "check gates --folder 'my own'" in capsys.readouterr().out
    assert main(["check", "gates"]) == 1
    assert "There is no" in capsys.readouterr().out


def test_check_from_the_skeleton_to_the_solution(folder, capfd):
    main(["start", "gradient"])
    assert main(["check", "gradient"]) == 1
    out = capfd.readouterr().out
    assert "forward is yet to be written" in out
    assert "0 of 4 checks are right." in out
    assert "python -m tinyrnn.learn hint gradient" in out
    (folder / "01_gradient.py").write_text(SOFTPLUS, encoding="utf-8")
    assert main(["check", "gradient"]) == 0
    out = capfd.readouterr().out
    assert out.count("  right  ") == 4
    assert "Well done." in out


def test_each_hint_says_one_more(folder, capsys):
    hints = EXERCISES["bptt"].hints
    for n in range(1, len(hints) + 1):
        assert main(["hint", "bptt"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert [line.partition(": ")[2] for line in lines] == list(hints[:n])
    assert main(["hint", "bptt"]) == 0
    assert "That was all." in capsys.readouterr().out
    assert main(["hint", "cell"]) == 0
    assert capsys.readouterr().out.startswith("1 of ")
    assert json.loads((folder / ".hints.json").read_text()) == {"bptt": len(hints), "cell": 1}


@pytest.mark.parametrize("content", ["{", "[1]", '{"bptt": "many"}', '{"bptt": -3}', '{"bptt": 99}', "\udcff"])
def test_a_broken_file_of_hints_is_no_trouble(folder, capsys, content):
    folder.mkdir()
    (folder / ".hints.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    assert main(["hint", "bptt"]) == 0
    assert capsys.readouterr().out.startswith("1 of ")


def test_the_solution_is_shown_when_asked_for(folder, capsys, monkeypatch):
    assert main(["solution", "bptt", "--yes"]) == 0
    assert capsys.readouterr().out == EXERCISES["bptt"].solution
    for answer, status in (("y", 0), ("no", 1), ("", 1)):
        monkeypatch.setattr("builtins.input", lambda question, answer=answer: answer)
        assert main(["solution", "bptt"]) == status
        assert (EXERCISES["bptt"].solution in capsys.readouterr().out) == (status == 0)


def test_a_question_that_nobody_answers_shows_nothing(folder, capsys, monkeypatch):
    def nobody(question):
        raise EOFError

    monkeypatch.setattr("builtins.input", nobody)
    assert main(["solution", "bptt"]) == 1
    out = capsys.readouterr().out
    assert "--yes shows it" in out
    assert "def backward" not in out


def test_an_unknown_exercise_is_told_with_the_names(folder, capsys):
    with pytest.raises(SystemExit):
        main(["check", "btt"])
    assert "invalid choice: 'btt'" in capsys.readouterr().err


def test_a_folder_that_cannot_be_made_is_one_line(folder, capsys):
    folder.write_text("a file")
    for command in ("start", "hint"):
        assert main([command, "bptt"]) == 1
        assert capsys.readouterr().err == "error: cannot write to exercises: File exists; choose another --folder\n"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit for the size of files")
def test_a_full_disk_leaves_no_file_that_would_stay_as_it_is(folder):
    start = f"{shlex.quote(sys.executable)} -m tinyrnn.learn start bptt"
    run = subprocess.run(["bash", "-c", f"ulimit -f 0; {start}"], capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert run.stderr.startswith("error: cannot write to exercises: ")
    assert list(folder.iterdir()) == []
    assert main(["start", "bptt"]) == 0


def test_a_terminal_without_greek_gets_the_same_verdict(folder, monkeypatch):
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    monkeypatch.setenv("PYTHONUTF8", "0")
    folder.mkdir()
    (folder / "07_lstm.py").write_text(EXERCISES["lstm"].solution, encoding="utf-8")
    command = [sys.executable, "-m", "tinyrnn.learn", "check", "lstm"]
    run = subprocess.run(command, capture_output=True, text=True, encoding="ascii", check=True)
    assert "  right     The memory is c' = ?(f)" in run.stdout
    assert "5 of 5 checks are right." in run.stdout
