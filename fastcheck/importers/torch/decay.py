"""The weight_decay of a PyTorch optimizer as a penalty of J."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fastcheck.errors import InputError
from fastcheck.importers.chain import Chain

__all__ = ["Decay", "weight_decay"]

# Loshchilov & Hutter, "Decoupled weight decay regularization", 2019: no gradient of any penalty.
DECOUPLED = ("AdamW", "SGDW", "Lion", "Muon")


@dataclass(frozen=True)
class Decay:
    """λ of λ/2·Σ‖W‖², and what a reader should know."""

    rate: float = 0.0
    notes: tuple[str, ...] = ()


def weight_decay(module: Any, chain: Chain, gradients: dict[str, Any], optimizer: Any) -> Decay:
    """Return an optimizer's decay, and add its share to the gradients of the weights.

    Raises
    ------
    InputError
        For decoupled decay, which is no gradient, and for decays that differ between weights.

    Notes
    -----
    torch decays biases as well. Their share of the gradient is exactly λ·b, which has nothing to
    check, and the penalty of J is on weights: it is left out on both sides, and a note says so.
    """
    if optimizer is None:
        return Decay()
    rates = _rates(module, optimizer)
    weights = {layer.names[0]: rates.get(layer.names[0], 0.0) for layer in chain.layers}
    if len(set(weights.values())) > 1:
        given = ", ".join(f"{name}: {rate:g}" for name, rate in weights.items())
        raise InputError(
            f"weight_decay differs between weights ({given})",
            "one λ for all weights",
            "Check without optimizer=: the decay is the optimizer's own and needs no check.",
        )
    rate = next(iter(weights.values()))
    parameters = dict(module.named_parameters())
    for name in weights:
        if rate and gradients[name] is not None:
            gradients[name] = gradients[name].add(parameters[name].detach(), alpha=rate)
    biases = [layer.names[1] for layer in chain.layers if layer.biases is not None]
    decayed = [name for name in biases if rates.get(name, 0.0)]
    if not decayed:
        return Decay(rate)
    note = (
        f"the optimizer decays biases too ({', '.join(decayed)}); their exact share λ·b is left "
        "out of gradient and J"
    )
    return Decay(rate, (note,))


def _rates(module: Any, optimizer: Any) -> dict[str, float]:
    """Return weight_decay by parameter name."""
    groups = getattr(optimizer, "param_groups", None)
    if groups is None:
        raise InputError(f"optimizer of type {type(optimizer).__name__}", "a torch.optim.Optimizer")
    names = {id(p): name for name, p in module.named_parameters()}
    rates: dict[str, float] = {}
    for group in groups:
        rate = float(group.get("weight_decay", 0.0))
        kind = type(optimizer).__name__
        if rate and (kind in DECOUPLED or group.get("decoupled_weight_decay")):
            raise InputError(
                f"{kind} with weight_decay={rate:g}, which shrinks the weights beside the gradient",
                "a decay that is the gradient of λ/2·Σ‖W‖² (SGD, Adam)",
                "Check without optimizer=.",
            )
        if rate and group.get("maximize"):
            raise InputError(f"{kind} with maximize=True", "an optimizer that minimizes J")
        rates |= {names[id(p)]: rate for p in group["params"] if id(p) in names}
    return rates
