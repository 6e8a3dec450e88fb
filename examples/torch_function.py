"""Check a hand-written torch.autograd.Function: its forward is right, its backward is not.

python torch_function.py

Autograd runs whatever `backward` it is given. `activations=` says what the function claims to be.
"""

import torch
from torch import nn

from fastcheck import check_torch


class SiLU(torch.autograd.Function):
    """z·σ(z), whose backward forgets that z stands in the product, too."""

    @staticmethod
    def forward(ctx, z):
        ctx.save_for_backward(z)
        return z * torch.sigmoid(z)

    @staticmethod
    def backward(ctx, dA):
        (z,) = ctx.saved_tensors
        s = torch.sigmoid(z)
        return dA * s * (1 - s)


class MendedSiLU(SiLU):
    """The same forward, with the product rule in its backward."""

    @staticmethod
    def backward(ctx, dA):
        (z,) = ctx.saved_tensors
        s = torch.sigmoid(z)
        return dA * (s + z * s * (1 - s))


class Activation(nn.Module):
    """A module around a function, as it stands in a network."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, z):
        return self.function.apply(z)


def check(function):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(12, 9), Activation(function), nn.Linear(9, 4)).double()
    inputs, targets = torch.randn(30, 12, dtype=torch.float64), torch.arange(30) % 4
    return check_torch(
        module, nn.CrossEntropyLoss(), inputs, targets, activations={function: "silu"}
    )


wrong = check(SiLU)
print(wrong)
assert wrong.status == "wrong"

right = check(MendedSiLU)
print(f"\nMended: difference {right.difference:.1e}")
assert right.passed
