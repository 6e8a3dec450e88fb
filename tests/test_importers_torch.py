"""PyTorch modules as they are: right ones pass, wrong backwards are named, others are refused."""

# mypy: allow-subclassing-any, allow-untyped-decorators

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from fastcheck.errors import InputError
from fastcheck.frameworks import check_torch
from fastcheck.importers.torch.model import network_from_state_dict, problem_from_torch

torch: Any = pytest.importorskip("torch")
nn: Any = torch.nn
F: Any = torch.nn.functional


class Lambda(nn.Module):
    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Any) -> Any:
        return self.function(x)


class RightReLU(torch.autograd.Function):
    slope = 1.0

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        ctx.save_for_backward(x)
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx: Any, dA: Any) -> Any:
        (x,) = ctx.saved_tensors
        return dA * (x > 0)


class LeakyBackward(RightReLU):
    @staticmethod
    def backward(ctx: Any, dA: Any) -> Any:
        (x,) = ctx.saved_tensors
        return torch.where(x > 0, dA, 0.1 * dA)


class NumPyTanh(torch.autograd.Function):
    """Its forward leaves torch: nobody can see what it does."""

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        a = torch.from_numpy(np.tanh(x.detach().numpy()))
        ctx.save_for_backward(a)
        return a

    @staticmethod
    def backward(ctx: Any, dA: Any) -> Any:
        (a,) = ctx.saved_tensors
        return dA * (1 - a**2)


class TutorialLinear(torch.autograd.Function):
    """As PyTorch's own tutorial writes it; `db` may be wrong."""

    bias_factor = 1.0

    @staticmethod
    def forward(ctx: Any, x: Any, W: Any, b: Any) -> Any:
        ctx.save_for_backward(x, W)
        output = x.mm(W.t())
        output += b.unsqueeze(0).expand_as(output)
        return output

    @classmethod
    def gradients(cls, ctx: Any, dZ: Any) -> Any:
        x, W = ctx.saved_tensors
        return dZ.mm(W), dZ.t().mm(x), cls.bias_factor * dZ.sum(0)

    @staticmethod
    def backward(ctx: Any, dZ: Any) -> Any:
        return TutorialLinear.gradients(ctx, dZ)


class MeanBias(TutorialLinear):
    @staticmethod
    def backward(ctx: Any, dZ: Any) -> Any:
        x, W = ctx.saved_tensors
        return dZ.mm(W), dZ.t().mm(x), dZ.mean(0)


class CustomLinear(nn.Module):
    def __init__(self, n_in: Any, n_out: Any, function: Any) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(n_out, n_in) / math.sqrt(n_in))
        self.bias = nn.Parameter(torch.randn(n_out) * 0.1)
        self.function = function

    def forward(self, x: Any) -> Any:
        return self.function.apply(x, self.weight, self.bias)


class Skip(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(8, 8)

    def forward(self, x: Any) -> Any:
        return x + self.inner(x)


class ByHand(nn.Module):
    """Functional calls, questions about shapes, a loop, weights of both orientations."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(12, 8)
        self.W = nn.Parameter(torch.randn(8, 6))
        self.c = nn.Parameter(torch.randn(6))
        self.rest = nn.ModuleList([nn.Linear(6, 6, bias=False), nn.Linear(6, 4)])

    def forward(self, x: Any) -> Any:
        if x.dim() > 2:
            x = x.view(len(x), -1)
        x = (x - 0.5) / 2
        x = torch.relu(self.first(x))
        x = (x @ self.W + self.c).contiguous()
        for layer in self.rest:
            x = layer(F.gelu(F.dropout(x, 0.5, training=False)))
        return x


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def chain(*middle: Any) -> Any:
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(12, 8),
        *middle,
        nn.Sequential(nn.Linear(8, 5), nn.Tanh()),
        nn.Linear(5, 4),
    )


def inputs() -> Any:
    return torch.randn(7, 3, 4)


def labels() -> Any:
    return torch.randint(0, 4, (7,))


def rows() -> Any:
    return torch.randn(7, 4)


CE = nn.CrossEntropyLoss()

MODULES: dict[str, Any] = {
    "relu in place": lambda: chain(nn.ReLU(inplace=True), nn.Identity()),
    "leaky relu": lambda: chain(nn.LeakyReLU(0.2)),
    "elu": lambda: chain(nn.ELU(0.7)),
    "selu": lambda: chain(nn.SELU()),
    "celu": lambda: chain(nn.CELU()),
    "softplus": lambda: chain(nn.Softplus()),
    "sigmoid": lambda: chain(nn.Sigmoid()),
    "hardtanh": lambda: chain(nn.Hardtanh()),
    "relu6": lambda: chain(nn.ReLU6()),
    "silu": lambda: chain(nn.SiLU()),
    "gelu": lambda: chain(nn.GELU()),
    "gelu tanh": lambda: chain(nn.GELU(approximate="tanh")),
    "softsign": lambda: chain(nn.Softsign()),
    "mish": lambda: chain(nn.Mish()),
    "dropout in eval": lambda: chain(nn.Dropout(), nn.ReLU()).eval(),
    "dropout of 0": lambda: chain(nn.Dropout(0.0)),
    "by hand": ByHand,
    "autograd function seen through": lambda: chain(Lambda(RightReLU.apply)),
    "linear as an autograd function": lambda: nn.Sequential(
        nn.Flatten(), CustomLinear(12, 6, TutorialLinear), nn.ReLU(), nn.Linear(6, 4)
    ),
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", MODULES)
def test_a_right_module_passes_under_its_own_names(name: Any, dtype: Any) -> None:
    module = MODULES[name]().to(dtype)
    report = check_torch(module, CE, inputs(), labels())
    assert report.passed, report.to_text()
    shown = {block.parameter.removesuffix(".T") for block in report.blocks}
    assert shown == {name for name, _ in module.named_parameters()}
    assert report.held_to.precision == str(dtype).removeprefix("torch.")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precisions_are_held_to_their_own_rounding(dtype: Any) -> None:
    report = check_torch(chain(nn.ReLU()).to(dtype), CE, inputs(), labels())
    assert report.passed, report.to_text()
    assert report.held_to.precision == str(dtype).removeprefix("torch.")


def soft() -> Any:
    return torch.softmax(rows(), 1)


def halves() -> Any:
    return torch.randint(0, 2, (7, 4))


LOSSES: dict[str, Any] = {
    "cross-entropy": (CE, labels),
    "its class": (nn.CrossEntropyLoss, labels),
    "its function": (F.cross_entropy, labels),
    "sum": (nn.CrossEntropyLoss(reduction="sum"), labels),
    "none, then mean": (lambda z, t: F.cross_entropy(z, t, reduction="none").mean(), labels),
    "smoothed": (nn.CrossEntropyLoss(label_smoothing=0.1), labels),
    "probabilities": (nn.CrossEntropyLoss(), soft),
    "smoothed probabilities": (nn.CrossEntropyLoss(label_smoothing=0.3), soft),
    "log softmax in the loss": (lambda z, t: F.nll_loss(F.log_softmax(z, dim=1), t), labels),
    "by hand": (lambda z, t: -(t * torch.log_softmax(z, -1)).sum(1).mean(), soft),
    "logistic": (nn.BCEWithLogitsLoss(), halves),
    "logistic, sum": (nn.BCEWithLogitsLoss(reduction="sum"), halves),
    "sigmoid in the loss": (lambda z, t: F.binary_cross_entropy(z.sigmoid(), t), halves),
    "squared": (nn.MSELoss(), rows),
    "squared, sum": (nn.MSELoss(reduction="sum"), rows),
    "squared, halved": (lambda z, t: 0.5 * F.mse_loss(z, t), rows),
    "squared by hand": (lambda z, t: ((z - t) ** 2).mean() / 2, rows),
    "squared by hand, summed": (lambda z, t: (t - z).square().sum(1).mean(), rows),
    "Huber": (nn.HuberLoss(delta=0.4), rows),
    "smooth L1": (nn.SmoothL1Loss(), rows),
    "smooth L1 of 0.3": (nn.SmoothL1Loss(beta=0.3), rows),
}


@pytest.mark.parametrize("name", LOSSES)
def test_losses_and_reductions_are_taken_over(name: Any) -> None:
    loss, targets = LOSSES[name]
    report = check_torch(chain(nn.Tanh()).double(), loss, inputs(), targets())
    assert report.passed, report.to_text()
    assert report.cost is not None
    assert report.cost.agrees
    assert report.cost.explanation == ""


@pytest.mark.parametrize(
    ("last", "loss", "targets"),
    [
        (nn.LogSoftmax(1), nn.NLLLoss(), labels),
        (nn.Sigmoid(), nn.BCELoss(), halves),
        (nn.Sigmoid(), nn.MSELoss(), rows),
    ],
)
def test_last_activations_go_with_their_losses(last: Any, loss: Any, targets: Any) -> None:
    module = nn.Sequential(*chain(nn.ReLU()), last).double()
    assert check_torch(module, loss, inputs(), targets()).passed


def test_one_output_may_be_squeezed_and_targets_may_be_numpy() -> None:
    module = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 1), nn.Flatten(0))
    X = np.random.default_rng(0).standard_normal((9, 6))
    assert check_torch(module, nn.BCEWithLogitsLoss(), X, np.arange(9) % 2).passed
    assert check_torch(module, nn.MSELoss(), X, X[:, 0]).passed


CLAIMS: dict[str, Any] = {
    "by the function": (lambda: chain(Lambda(LeakyBackward.apply)), {LeakyBackward: "relu"}),
    "by the place": (lambda: chain(Lambda(LeakyBackward.apply)), {"2": "relu"}),
    "by the module's class": (lambda: chain(Lambda(LeakyBackward.apply)), {Lambda: "relu"}),
    "unnamed": (lambda: chain(Lambda(LeakyBackward.apply)), {}),
    "as a function": (
        lambda: chain(Lambda(LeakyBackward.apply)),
        {LeakyBackward: lambda z: z if z > 0.0 else 0.0},
    ),
}


@pytest.mark.parametrize("name", CLAIMS)
def test_a_wrong_backward_of_an_activation_is_named(name: Any) -> None:
    make, activations = CLAIMS[name]
    report = check_torch(make().double(), CE, inputs(), labels(), activations=activations)
    assert report.status == "wrong"
    wrong = {block.name for block in report.blocks if block.status == "wrong"}
    assert wrong == {"d(1.weight)", "d(1.bias)"}


def test_the_right_backward_of_an_unseen_activation_passes() -> None:
    module = chain(Lambda(NumPyTanh.apply))
    with pytest.raises(InputError, match=r"2 \(Lambda\).*activations=\{'2': 'relu'\}"):
        problem_from_torch(module, CE, inputs(), labels())
    assert check_torch(module, CE, inputs(), labels()).status != "wrong"  # as a function
    for key in (NumPyTanh, "2", Lambda):
        assert check_torch(module, CE, inputs(), labels(), activations={key: "tanh"}).passed


def test_a_gate_passes_once_it_is_named_or_given_as_a_function() -> None:
    def swish(z: Any) -> Any:
        return z / (1.0 + math.exp(-z))

    module = chain(Lambda(lambda x: x * torch.sigmoid(x))).double()
    for claim in ("silu", swish):
        assert check_torch(module, CE, inputs(), labels(), activations={"2": claim}).passed


def test_a_forward_that_is_not_what_it_claims_is_refused_with_the_place() -> None:
    with pytest.raises(InputError, match=r"2 \(Lambda\) gives 0 at z = .* gelu is"):
        check_torch(
            chain(Lambda(RightReLU.apply)), CE, inputs(), labels(), activations={"2": "gelu"}
        )


def test_a_wrong_bias_gradient_of_a_custom_linear_is_named() -> None:
    module = nn.Sequential(nn.Flatten(), CustomLinear(12, 6, MeanBias), nn.ReLU(), nn.Linear(6, 4))
    report = check_torch(module, CE, inputs(), labels())
    assert {b.name for b in report.blocks if b.status == "wrong"} == {"d(1.bias)"}


REFUSED: dict[str, Any] = {
    "convolution": (
        lambda: nn.Sequential(nn.Conv1d(3, 2, 3), nn.Flatten(), nn.Linear(4, 4)),
        r"0 \(Conv1d\): conv1d",
    ),
    "skip": (lambda: chain(nn.ReLU(), Skip()), r"3 \(Skip\): add of two branches"),
    "batch norm": (lambda: chain(nn.BatchNorm1d(8)), r"2 \(BatchNorm1d\): batch_norm"),
    "layer norm": (lambda: chain(nn.LayerNorm(8)), r"2 \(LayerNorm\)"),
    "a slope that is learnt": (lambda: chain(nn.PReLU()), r"2 \(PReLU\)"),
    "recurrent": (
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.GRUCell(8, 4)),
        r"2 \(GRUCell\)",
    ),
    "unknown activation": (lambda: chain(nn.Hardswish()), r"2 \(Hardswish\).*activations=\{'2'"),
    "scaled": (lambda: chain(Lambda(lambda x: 2 * x)), r"2 \(Lambda\): mul"),
    "detached": (lambda: chain(Lambda(lambda x: x.detach() + 0 * x)), r"2 \(Lambda\)"),
    "normalized weights": (
        lambda: nn.Sequential(
            nn.Flatten(), nn.utils.parametrizations.weight_norm(nn.Linear(12, 4))
        ),
        r"1 \(ParametrizedLinear\): the weights",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_chain_is_refused_with_its_place_and_the_way_out(name: Any) -> None:
    make, message = REFUSED[name]
    with pytest.raises(InputError, match=message) as caught:
        problem_from_torch(make(), CE, inputs(), labels())
    assert "gradcheck_function" in str(caught.value)


def test_dropout_that_is_on_is_refused_with_the_reason() -> None:
    with pytest.raises(InputError, match=r"2 \(Dropout\): dropout is switched on.*eval\(\)"):
        problem_from_torch(chain(nn.Dropout()), CE, inputs(), labels())


def test_shared_weights_are_refused() -> None:
    layer = nn.Linear(12, 12)
    module = nn.Sequential(nn.Flatten(), layer, nn.ReLU(), layer, nn.Linear(12, 4))
    with pytest.raises(InputError, match=r"1\.weight \(shared"):
        problem_from_torch(module, CE, inputs(), labels())


@pytest.mark.parametrize(
    ("loss", "targets", "message"),
    [
        (nn.CrossEntropyLoss(weight=torch.ones(4)), labels, "weight= of cross_entropy"),
        (nn.CrossEntropyLoss(ignore_index=1), lambda: torch.ones(7, dtype=torch.long), "ignore"),
        (nn.L1Loss(), rows, "l1_loss"),
        (nn.MSELoss(), lambda: torch.randn(7, 1), "broadcasts"),
        (nn.MSELoss(reduction="none"), rows, "one number"),
        (lambda z, t: F.cross_entropy(z.softmax(1), t), labels, "softmax twice"),
        (nn.BCELoss(), lambda: torch.rand(7, 4), "fails|sigmoid"),
        (nn.NLLLoss(), labels, "log_softmax"),
        (lambda z, t: F.cross_entropy(z, t) + F.mse_loss(z, 0 * z), labels, "branches"),
    ],
)
def test_losses_of_another_kind_are_refused(loss: Any, targets: Any, message: Any) -> None:
    with pytest.raises(InputError, match=message):
        problem_from_torch(chain(nn.ReLU()), loss, inputs(), targets())


def test_the_module_is_left_as_it_was_found() -> None:
    module = chain(nn.BatchNorm1d(8))
    module[1].weight.requires_grad_(False)
    module[1].bias.grad = torch.ones(8)
    kept = module[1].bias.grad
    before = {k: v.clone() for k, v in module.state_dict().items()}
    random = torch.get_rng_state()
    with pytest.raises(InputError):
        problem_from_torch(module, CE, inputs(), labels())
    x, y = inputs(), labels()
    torch.set_rng_state(random)
    good = chain(nn.ReLU())
    good[1].bias.grad = kept
    random = torch.get_rng_state()
    problem_from_torch(good, CE, x, y)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())
    assert not module[1].weight.requires_grad
    assert module[1].bias.grad is kept
    assert good[1].bias.grad is kept
    assert torch.equal(kept, torch.ones(8))
    assert good[1].weight.grad is None
    assert module.training
    assert not any(
        m._forward_hooks or m._forward_pre_hooks for m in [*module.modules(), *good.modules()]
    )


def test_inputs_are_left_as_they_were_found() -> None:
    x = inputs()
    before = x.clone()
    module = nn.Sequential(Lambda(lambda x: x.mul_(0.5)), *chain(nn.ReLU(inplace=True)))
    assert check_torch(module, CE, x, labels()).passed
    assert torch.equal(x, before)


def test_a_module_that_draws_random_numbers_is_refused() -> None:
    module = nn.Sequential(Lambda(lambda x: x + torch.randn_like(x)), *chain(nn.ReLU()))
    with pytest.raises(InputError, match="same value for the same θ"):
        problem_from_torch(module, CE, inputs(), labels())


def test_weight_decay_is_the_penalty_and_the_biases_decay_is_explained() -> None:
    module = chain(nn.ReLU()).double()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, weight_decay=0.3)
    problem = problem_from_torch(module, CE, inputs(), labels(), optimizer=optimizer)
    assert (problem.network.l2, problem.network.penalty) == (0.3, "l2/2")
    assert "decays biases too (1.bias" in problem.name
    assert check_torch(module, CE, inputs(), labels(), optimizer=optimizer).passed


def test_decoupled_weight_decay_is_refused() -> None:
    module = chain(nn.ReLU())
    optimizer = torch.optim.AdamW(module.parameters(), weight_decay=0.1)
    with pytest.raises(InputError, match="AdamW"):
        problem_from_torch(module, CE, inputs(), labels(), optimizer=optimizer)


def test_a_penalty_written_out_is_checked_once_it_is_named() -> None:
    module = chain(nn.ReLU()).double()

    def loss(z: Any, t: Any) -> Any:
        weights = [p for name, p in module.named_parameters() if name.endswith("weight")]
        return F.cross_entropy(z, t) + 0.1 / (2 * len(t)) * sum((W**2).sum() for W in weights)

    with pytest.raises(InputError, match="l2="):
        problem_from_torch(module, loss, inputs(), labels())
    assert check_torch(module, loss, inputs(), labels(), l2=0.1, penalty="l2/2m").passed
    assert not check_torch(module, loss, inputs(), labels(), l2=0.2, penalty="l2/2m").passed


def test_a_loss_of_ones_own_may_say_which_it_is() -> None:
    class Half(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, z: Any, t: Any) -> Any:
            ctx.save_for_backward(z, t)
            return torch.tensor(0.5 * float(((z - t) ** 2).sum(1).mean()), dtype=z.dtype)

        @staticmethod
        def backward(ctx: Any, dJ: Any) -> Any:
            z, t = ctx.saved_tensors
            return dJ * (z - t) / z.shape[0], None

    module = chain(nn.ReLU()).double()
    report = check_torch(module, Half.apply, inputs(), rows(), loss_as="squared_error")
    assert report.passed, report.to_text()


def test_frozen_parameters_are_checked_and_said_to_be_frozen() -> None:
    module = chain(nn.ReLU())
    module[1].weight.requires_grad_(False)
    problem = problem_from_torch(module, CE, inputs(), labels())
    assert "1.weight is frozen" in problem.name
    assert check_torch(module, CE, inputs(), labels()).passed
    assert not module[1].weight.requires_grad


def test_a_state_dict_is_read_with_weights_only(tmp_path: Any) -> None:
    module = chain(nn.ReLU())
    torch.save(module.state_dict(), tmp_path / "state.pt")
    network = network_from_state_dict(
        tmp_path / "state.pt", activations=["relu", "tanh", "identity"]
    )
    assert network.sizes == [12, 8, 5, 4]
    assert network.precision == "float32"
    assert network.order.blocks[2].name == "3.0.weight"
    torch.save(module, tmp_path / "module.pt")
    with pytest.raises(InputError, match="weights_only=True"):
        network_from_state_dict(tmp_path / "module.pt")
    with pytest.raises(InputError, match=r"0\.weight of shape"):
        network_from_state_dict(nn.Sequential(nn.Conv1d(2, 3, 4)).state_dict())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"activations": {"9": "relu"}}, "does not come through"),
        ({"activation": {}}, "unknown option"),
    ],
)
def test_options_that_mean_nothing_are_refused(change: Any, message: Any) -> None:
    with pytest.raises(InputError, match=message):
        problem_from_torch(chain(nn.ReLU()), CE, inputs(), labels(), **change)
