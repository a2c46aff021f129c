"""The test at the start of a portable run: does this machine give the bits that it should?"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from ml_core.errors import ConfigError
from ml_core.numerics import elementary
from ml_core.numerics.exact.mode import ExactMode
from ml_core.numerics.exact.rounding import FACTOR_BITS, MAX_TERMS, multiply

# First 16 hexadecimal digits of SHA-256 over the results of `_COMPUTATIONS`. Whoever changes what
# exact arithmetic computes sets them anew from `answers("cpu")`.
KNOWN = {
    "convolution, group norm or pooling": "b5a141958bd9ad0d",
    "a linear layer": "b27e4b55c6f45375",
    "the loss": "bea7fba08aa8d599",
    "a division, a root or a small number": "f591ba51eda5657d",
    "exp or log": "41dabd3b6e8a6a66",
}


def check_exact(device: torch.device | str = "cpu") -> None:
    """Raise ConfigError where `device` does not give the bits that level portable promises.

    Products of the largest numbers and the longest sums are compared with integer arithmetic; each
    function, its gradient too, with the digest of its known result. It takes less than 0.1 s.
    """
    if not _products_are_whole(device):
        _refuse(device, "a product of matrices in float64, whose sums are not those of integers")
    for what, digest in answers(device).items():
        if digest != KNOWN[what]:
            _refuse(device, f"{what}, whose digest is {digest} and not {KNOWN[what]}")


def answers(device: torch.device | str) -> dict[str, str]:
    """Return the digest of what each function computes on `device` from fixed numbers."""
    return {what: _digest(compute(device)) for what, compute in _COMPUTATIONS.items()}


def _refuse(device: torch.device | str, what: str) -> None:
    raise ConfigError(
        f"training.numerics: portable cannot be honoured on this machine ({device}, torch "
        f"{torch.__version__}). Wrong is {what}. Unset what changes the arithmetic (flushing of "
        "subnormal numbers, emulated float64), use another device, or train with "
        "training.numerics: elastic or fast."
    )


def _products_are_whole(device: torch.device | str) -> bool:
    """Return whether sums of 2,048 products of 22-bit numbers come out as integer sums do."""
    highest = 2**FACTOR_BITS
    a = (_numbers(48 * MAX_TERMS, 1) * 2 * highest).round().view(48, MAX_TERMS)
    b = (_numbers(MAX_TERMS * 40, 2) * 2 * highest).round().view(MAX_TERMS, 40)
    a[0], b[:, 0], b[:, 1] = highest, highest, -highest  # sums of 2^53 and -2^53
    a[1], b[:, 2] = highest - a[1].abs() // 8, highest - b[:, 2].abs() // 8  # all bits, one sign
    whole = a.long() @ b.long()
    for left, right in ((a, b), (a, b.t().contiguous().t()), (a.t().contiguous().t(), b)):
        if not torch.equal(multiply(left.to(device), right.to(device)).cpu().long(), whole):
            return False
    return True


def _numbers(num: int, start: int) -> Tensor:
    """Return `num` numbers of 32 bits in [-1/2, 1/2), float64: a function of `start` alone.

    Multiples of 2^32 / golden ratio, mixed once (Knuth, TAOCP 3, section 6.4).
    """
    words = torch.arange(start * num, (start + 1) * num) * 0x9E3779B1 % 2**32
    words = (words ^ (words >> 15)) * 0x2C1B3C6D % 2**32
    return words.to(torch.float64) / 2**32 - 0.5


def _float32(start: int, *shape: int) -> Tensor:
    return _numbers(torch.Size(shape).numel(), start).to(torch.float32).view(shape)


def _with_gradients(
    device: torch.device | str, compute: Callable[..., Tensor], *inputs: Tensor
) -> Iterable[Tensor]:
    """Return the result of `compute` in exact arithmetic and the gradient of each of `inputs`."""
    placed = [x.to(device).requires_grad_() for x in inputs]
    with ExactMode():
        result = compute(*placed)
    weights = _float32(9, *result.shape).to(device)
    return [result.detach(), *torch.autograd.grad(result, placed, weights)]


def _block(x: Tensor, stem: Tensor, inner: Tensor, gain: Tensor) -> Tensor:
    """Return what a small convolutional network makes of `x`: strides, padding, norms, pooling."""
    x = F.conv2d(x / 3, stem, stride=2, padding=1)
    x = F.relu(F.group_norm(x, 2, gain, gain))
    short = F.avg_pool2d(x, 2, ceil_mode=True)
    x = F.conv2d(x, inner, stride=2, padding=1) + short
    centre = x[:, :, 1:3, 1:3]
    return torch.cat([centre.amax(dim=(2, 3)), x.mean(dim=(2, 3))], dim=1)


def _convolution(device: torch.device | str) -> Iterable[Tensor]:
    shapes = ((5, 3, 18, 18), (8, 3, 3, 3), (8, 8, 3, 3), (8,))
    return _with_gradients(device, _block, *(_float32(i, *s) for i, s in enumerate(shapes, 1)))


def _linear(device: torch.device | str) -> Iterable[Tensor]:
    inputs = (_float32(1, 6, 3000), _float32(2, 5, 3000), _float32(3, 5))
    return _with_gradients(device, F.linear, *inputs)


def _loss(device: torch.device | str) -> Iterable[Tensor]:
    labels = torch.arange(32, device=device) % 3

    def compute(logits: Tensor) -> Tensor:
        return F.cross_entropy(logits * 20, labels, reduction="none", label_smoothing=0.1)

    return _with_gradients(device, compute, _float32(1, 32, 3))


def _rounding(device: torch.device | str) -> Iterable[Tensor]:
    """Return quotients, roots and casts, with subnormal numbers among them, rounded once each."""
    x = (_float32(1, 512) + 0.75).to(device)
    small = (x * 2.0**-126) * 2.0**-12
    wide = (_numbers(512, 2) + 0.75).to(device)
    return [x / (x + 0.5), x.sqrt(), small, wide.sqrt(), x.double() / wide, wide.float()]


def _elementary(device: torch.device | str) -> Iterable[Tensor]:
    x = _numbers(512, 1).to(device)
    return [elementary.exp(x * 80), elementary.log(x + 0.75)]


_COMPUTATIONS: dict[str, Callable[[torch.device | str], Iterable[Tensor]]] = {
    "convolution, group norm or pooling": _convolution,
    "a linear layer": _linear,
    "the loss": _loss,
    "a division, a root or a small number": _rounding,
    "exp or log": _elementary,
}


def _digest(results: Iterable[Tensor]) -> str:
    digest = hashlib.sha256()
    for result in results:
        digest.update(result.contiguous().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]
