"""Check the gradient of any J(θ): fastcheck calls it as a black box.

python any_function.py
"""

import numpy as np

from fastcheck import gradcheck_function


def cube(t):
    return t**3


def slope(t):
    return 3 * t**2


# The textbook's first example: θ³ at θ = 1 with ε = 0.01 gives 3.0001 where dθ is 3. What so large
# an ε adds is measured and taken out: 3 is right, and 3.0001 would be wrong.
coarse = gradcheck_function(cube, slope, 1.0, epsilon=0.01)
fine = gradcheck_function(cube, slope, 1.0)
print(f"θ³, ε = 0.01: dθ_approx = {coarse.components[0].approximation:.4f}, {coarse.status}")
print(f"θ³, ε = auto: dθ_approx = {fine.components[0].approximation:.4f}, {fine.status}")
assert fine.passed

# A layer that is not dense: a small convolution with a bias, and half the squared error.
rng = np.random.default_rng(2)
image, target = rng.normal(size=(8, 8)), rng.normal(size=(6, 6))
theta = {"kernel": rng.normal(size=(3, 3)), "bias": np.array(0.5)}
patches = np.lib.stride_tricks.sliding_window_view(image, (3, 3))


def error(theta):
    return np.tensordot(patches, theta["kernel"], axes=2) + theta["bias"] - target


def J(theta):
    return 0.5 * np.sum(error(theta) ** 2)


def gradient(theta):
    errors = error(theta)
    return {"kernel": np.tensordot(errors, patches, axes=2), "bias": errors.sum()}


def flipped(theta):
    """The slip: the kernel is turned round, as it is on the way back to the image."""
    right = gradient(theta)
    return {**right, "kernel": right["kernel"][::-1, ::-1]}


right = gradcheck_function(J, gradient, theta)
wrong = gradcheck_function(J, flipped, theta)
print(f"convolution: {right.status}, difference {right.difference:.1e}\n")
print(wrong)
assert right.passed
assert wrong.status == "wrong"
