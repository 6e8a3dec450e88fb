"""Messages along edges: gather the nodes, weight them, scatter-add them to their targets."""

import numpy as np


def forward(nodes, weights, sources, goals):
    out = np.zeros_like(nodes)
    np.add.at(out, goals, nodes[sources] * weights[:, None])
    return out


def backward(dout, nodes, weights, sources, goals):
    at_edges = dout[goals]
    dnodes = np.zeros_like(nodes)
    np.add.at(dnodes, sources, at_edges * weights[:, None])
    dweights = (at_edges * nodes[sources]).sum(axis=-1)
    return dnodes, dweights, None, None


def inputs(seed):
    rng = np.random.default_rng(seed)
    edges = rng.integers(0, 5, size=(2, 9))
    return {
        "nodes": rng.normal(size=(5, 3)),
        "weights": rng.normal(size=9),
        "sources": edges[0],
        "goals": edges[1],
    }


SLIPS = {
    "goals and sources mixed up": ("at_edges = dout[goals]", "at_edges = dout[sources]"),
    "scattered to the goals": ("np.add.at(dnodes, sources,", "np.add.at(dnodes, goals,"),
    "repeats added once": (
        "np.add.at(dnodes, sources, at_edges * weights[:, None])",
        "dnodes[sources] += at_edges * weights[:, None]",
    ),
    "mean over the width": (".sum(axis=-1)", ".mean(axis=-1)"),
}
