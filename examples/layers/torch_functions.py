"""Three layers as functions of torch.autograd: linear, RMS norm, softmax cross-entropy."""

import torch


class Linear(torch.autograd.Function):
    """y = x Wᵀ + b."""

    @staticmethod
    def forward(ctx, x, weight, bias):
        ctx.save_for_backward(x, weight)
        return x @ weight.T + bias

    @staticmethod
    def backward(ctx, dout):
        x, weight = ctx.saved_tensors
        dweight = dout.T @ x
        return dout @ weight, dweight, dout.sum(0)


class RMSNorm(torch.autograd.Function):
    """x over its root mean square, times gamma."""

    @staticmethod
    def forward(ctx, x, gamma):
        scale = torch.rsqrt((x**2).mean(-1, keepdim=True) + 1e-6)
        ctx.save_for_backward(x, gamma, scale)
        return gamma * x * scale

    @staticmethod
    def backward(ctx, dout):
        x, gamma, scale = ctx.saved_tensors
        d = dout * gamma
        dx = scale * d - x * scale**3 * (d * x).mean(-1, keepdim=True)
        return dx, (dout * x * scale).sum(0)


class CrossEntropy(torch.autograd.Function):
    """Softmax cross-entropy, averaged over the labels."""

    @staticmethod
    def forward(ctx, logits, labels):
        ctx.save_for_backward(logits, labels)
        return -torch.log_softmax(logits, -1)[torch.arange(len(labels)), labels].mean()

    @staticmethod
    def backward(ctx, dout):
        logits, labels = ctx.saved_tensors
        d = torch.softmax(logits, -1)
        d[torch.arange(len(labels)), labels] -= 1
        return dout * d / len(labels), None


LAYERS = {
    "linear": Linear.apply,
    "rms_norm": RMSNorm.apply,
    "cross_entropy": CrossEntropy.apply,
}
SLIPS = {
    "linear": {
        "transposed": ("dweight = dout.T @ x", "dweight = x.T @ dout"),
        "mean": ("dout.sum(0)", "dout.mean(0)"),
        "None": ("dout @ weight, dweight,", "dout @ weight, None,"),
        "in place": ("dweight = dout.T @ x", "dweight = dout.mul_(2).T @ x / 2"),
    },
    "rms_norm": {
        "signed": ("scale**3", "-scale**3"),
        "gamma None": ("return dx, (dout * x * scale).sum(0)", "return dx, None"),
        "half precision": ("dx = scale * d", "dx = scale.bfloat16() * d"),
        "twice": ("(dout * x * scale).sum(0)", "(2 * dout * x * scale).sum(0)"),
    },
    "cross_entropy": {
        "dout forgotten": ("return dout * d", "return d"),
        "mean forgotten": ("dout * d / len(labels)", "dout * d"),
        "label forgotten": ("labels] -= 1", "labels] -= 0"),
        "zeros": ("d = torch.softmax(logits, -1)\n        d[", "d = 0 * logits\n        d["),
    },
}
