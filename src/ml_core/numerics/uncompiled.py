"""torch's optimizers without its compiler, which each of them loads for nothing: a second and more.

Their methods are wrapped so that `torch.compile` leaves them alone, and the wrapper imports the
compiler to say so (torch/_compile.py, and `_use_grad_for_differentiable` of torch/optim). Nothing
is compiled here, so the functions inside are taken as they are: the same steps, to the bit.
"""

from __future__ import annotations

import inspect

import torch
from torch.optim import Optimizer


class Uncompiled(Optimizer):
    """What all optimizers do, unwrapped; whoever inherits from it brings a step of its own."""

    add_param_group = inspect.unwrap(Optimizer.add_param_group)
    zero_grad = inspect.unwrap(Optimizer.zero_grad)
    state_dict = inspect.unwrap(Optimizer.state_dict)
    load_state_dict = inspect.unwrap(Optimizer.load_state_dict)


class Adam(Uncompiled, torch.optim.Adam):
    """torch's Adam."""

    step = torch.no_grad()(inspect.unwrap(torch.optim.Adam.step))


class AdamW(Uncompiled, torch.optim.AdamW):
    """torch's AdamW."""

    step = torch.no_grad()(inspect.unwrap(torch.optim.AdamW.step))


class SGD(Uncompiled, torch.optim.SGD):
    """torch's SGD."""

    step = torch.no_grad()(inspect.unwrap(torch.optim.SGD.step))
