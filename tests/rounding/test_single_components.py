"""Blocks of one component in low precision: right ones agree, and wrong by little is wrong."""

import numpy as np
import pytest

from fastcheck import gradcheck
from tests.nasty import styles
from tests.nasty.network import Nasty, named
from tests.nasty_checks import network_of, owners


@pytest.mark.parametrize(("dtype", "off"), [("float32", 2e-6), ("float16", 0.025)])
def test_the_only_component_of_a_block_is_held_to_ten_sigma(dtype: str, off: float) -> None:
    for seed in range(6):
        rng = np.random.default_rng(seed)
        net = Nasty(
            [rng.normal(size=(5, 3)), rng.normal(size=(1, 5))],
            [rng.normal(size=5), rng.normal(size=1)],
            [named("tanh"), named("identity")], named("squared_error"),
            rng.normal(size=(40, 3)), 2.0 + rng.normal(size=(40, 1)),
        ).rounded(dtype)  # fmt: skip
        given = owners(styles.rows(net, styles.Way(dtype)), "rows")
        network = network_of(net, dtype)
        inputs, targets = net.inputs.astype(dtype), net.targets.astype(dtype)
        assert gradcheck(network, inputs, targets, given, jobs=1).status == "agree"
        given[3] = (given[3] * (1.0 + off)).astype(dtype)
        report = gradcheck(network, inputs, targets, given, jobs=1)
        assert [b.name for b in report.blocks if b.verdict == "wrong"] == ["db2"]
