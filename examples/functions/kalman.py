"""A Kalman filter's likelihood in three numbers, with its sensitivities by hand."""

import numpy as np

SLIPS = ("variance's path", "gain's sensitivity", "log determinant", "log forgotten")
_random = np.random.default_rng(6)
Y = np.cumsum(_random.normal(size=30)) * 0.5 + _random.normal(size=30)


def draw(random):
    return np.array([0.3 * random.normal(), 0.5 * random.normal(), 0.5 * random.normal()])


def f(theta):
    return _run(theta, "")[0]


def gradient(theta, slip=""):
    return _run(theta, slip)[1]


def _run(theta, slip):
    phi, q, r = np.tanh(theta[0]), np.exp(theta[1]), np.exp(theta[2])
    one = theta.dtype.type(1)
    dphi = np.array([1 - phi * phi, 0, 0], theta.dtype)
    dq, dr = np.array([0, q, 0], theta.dtype), np.array([0, 0, r], theta.dtype)
    if slip == "log forgotten":
        dq = np.array([0, 1, 0], theta.dtype)
    mean, variance = 0 * one, one
    dmean, dvariance = np.zeros(3, theta.dtype), np.zeros(3, theta.dtype)
    J, dJ = 0 * one, np.zeros(3, theta.dtype)
    for y in Y.astype(theta.dtype):
        dprior = dphi * mean + phi * dmean
        prior = phi * mean
        dP = 2 * phi * dphi * variance + dq
        if slip != "variance's path":
            dP = dP + phi * phi * dvariance
        P = phi * phi * variance + q
        S, dS = P + r, dP + dr
        e, de = y - prior, -dprior
        J = J + (np.log(S) + e * e / S) / 2
        dJ = dJ + ((0 if slip == "log determinant" else dS / S) + 2 * e * de / S) / 2
        dJ = dJ - e * e / S**2 * dS / 2
        K = P / S
        dK = 0 if slip == "gain's sensitivity" else dP / S - P / S**2 * dS
        mean, dmean = prior + K * e, dprior + dK * e + K * de
        variance, dvariance = (1 - K) * P, (1 - K) * dP - dK * P
    return J / len(Y), dJ / len(Y)
