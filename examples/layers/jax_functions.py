"""Two layers with rules of their own in JAX: RMS norm and SwiGLU."""

import jax


@jax.custom_vjp
def rms_norm(x, gamma):
    return gamma * x * jax.lax.rsqrt((x**2).mean(-1, keepdims=True) + 1e-6)


def rms_norm_forward(x, gamma):
    scale = jax.lax.rsqrt((x**2).mean(-1, keepdims=True) + 1e-6)
    return gamma * x * scale, (x, gamma, scale)


def rms_norm_backward(saved, dout):
    x, gamma, scale = saved
    d = dout * gamma
    dx = scale * d - x * scale**3 * (d * x).mean(-1, keepdims=True)
    return dx, (dout * x * scale).sum(0)


rms_norm.defvjp(rms_norm_forward, rms_norm_backward)


@jax.custom_vjp
def swiglu(x, gate, up):
    return jax.nn.silu(x @ gate) * (x @ up)


def swiglu_forward(x, gate, up):
    return swiglu(x, gate, up), (x, gate, up)


def swiglu_backward(saved, dout):
    x, gate, up = saved
    z, u = x @ gate, x @ up
    s = jax.nn.sigmoid(z)
    dz, du = dout * u * s * (1 + z * (1 - s)), dout * z * s
    return dz @ gate.T + du @ up.T, x.T @ dz, x.T @ du


swiglu.defvjp(swiglu_forward, swiglu_backward)
LAYERS = {"rms_norm": rms_norm, "swiglu": swiglu}
SLIPS = {
    "rms_norm": {
        "square": ("scale**3", "scale**2"),
        "sum": ("(d * x).mean(-1", "(d * x).sum(-1"),
        "stop_gradient": ("return dx, (", "return dx, 0 * ("),
        "first sample": ("(dout * x * scale).sum(0)", "(dout * x * scale)[0]"),
    },
    "swiglu": {
        "swapped": ("x.T @ dz, x.T @ du", "x.T @ du, x.T @ dz"),
        "one branch": ("dz @ gate.T + du @ up.T", "du @ up.T"),
        "slope": ("s * (1 + z * (1 - s)), dout", "s * (1 - s), dout"),
        "not activated": ("dout * z * s\n", "dout * z\n"),
    },
}
