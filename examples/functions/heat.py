"""An implicit heat equation with a diffusivity in each cell, and its discrete adjoint."""

import numpy as np

SLIPS = ("transpose forgotten", "first step forgotten", "sign of the source", "log forgotten")
CELLS, STEPS, DT = 12, 6, 0.02
PLACES = np.linspace(0, 1, CELLS)
START = np.exp(-40 * (PLACES - 0.4) ** 2)
WANTED = 0.5 * np.exp(-8 * (PLACES - 0.6) ** 2)


def draw(random):
    return 0.5 * random.normal(size=CELLS + 1) - 3.0  # logarithms


def _matrix(k):
    flow = (CELLS**2 * DT * k).astype(k.dtype)
    diagonal = 1 + flow[:-1] * (1 + PLACES.astype(k.dtype)) + flow[1:]
    # Convection makes it unsymmetric, so that the transpose matters.
    return np.diag(diagonal) - np.diag(flow[1:-1], 1) - np.diag(flow[1:-1] * 1.3, -1)


def _states(k):
    states = [START.astype(k.dtype)]
    matrix = _matrix(k)
    for _ in range(STEPS):
        states.append(np.linalg.solve(matrix, states[-1]))
    return matrix, states


def f(theta):
    states = _states(np.exp(theta))[1]
    return np.sum((states[-1] - WANTED.astype(theta.dtype)) ** 2) / 2


def gradient(theta, slip=""):
    k = np.exp(theta)
    matrix, states = _states(k)
    adjoint = states[-1] - WANTED.astype(theta.dtype)
    dmatrix = np.zeros_like(matrix)
    for step in range(STEPS, 0, -1):
        adjoint = np.linalg.solve(matrix if slip == "transpose forgotten" else matrix.T, adjoint)
        if slip != "first step forgotten" or step > 1:
            dmatrix -= np.outer(adjoint, states[step])
    diagonal = np.diag(dmatrix)
    dflow = np.zeros_like(k)
    dflow[:-1] += diagonal * (1 + PLACES.astype(k.dtype))
    dflow[1:] += diagonal
    lower = np.diag(dmatrix, -1) * (-1 if slip == "sign of the source" else 1)
    dflow[1:-1] -= np.diag(dmatrix, 1) + theta.dtype.type(1.3) * lower
    return dflow * (CELLS**2 * DT) * (1 if slip == "log forgotten" else k)
