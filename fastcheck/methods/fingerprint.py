"""What makes one problem another: which chunks of an earlier run may be gone on from."""

from __future__ import annotations

from typing import Any

from fastcheck.execution.journal import digest
from fastcheck.kernels.compiling import CACHE_FOLDER
from fastcheck.model.network import Batch, Network
from fastcheck.types import Integers

__all__ = ["fingerprint"]


def fingerprint(network: Network, batch: Batch, indices: Integers | None, *parts: Any) -> str:
    """Return a digest of all that the differences of some components depend on.

    Parameters
    ----------
    network, batch : Network, Batch
    indices : ndarray of int64, increasing, or None
        Which components; None for all.
    *parts
        What the method adds: its name, ε, how the work is cut.
    """
    own = [a.function for a in network.activations] + [network.loss.function]
    return digest(
        [
            CACHE_FOLDER.name,  # of the kernels' sources, the libraries and the machine
            network.sizes,
            network.theta,
            batch.X,
            batch.T,
            "all" if indices is None else indices,
            network.order.offsets,
            network.l2,
            network.penalty,
            network.reduction,
            network.loss_scale,
            [str(a) for a in network.activations],
            str(network.loss),
            *map(_code, own),
            *(mask if mask is not None else "no mask" for mask in network.masks),
            *parts,
        ]
    )


def _code(function: Any) -> tuple[Any, ...] | None:
    """Return what a function of the user's does, as far as that can be told."""
    if function is None:
        return None
    code = getattr(getattr(function, "py_func", function), "__code__", None)
    return None if code is None else (code.co_code, code.co_names, repr(code.co_consts))
