"""The handwritten digits that the embedded example runs on (attribution: README.md here)."""

from __future__ import annotations

from importlib import resources

import numpy as np
from numpy.typing import NDArray

__all__ = ["load_digits"]

BRIGHTEST = 16  # each pixel counts the dark cells of a 4 by 4 square


def load_digits() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Read the 500 handwritten digits shipped with the package, 50 of each class.

    Returns
    -------
    images : (500, 64) float64
        One image of 8 by 8 pixels per row, in row order, scaled to [0, 1].
    labels : (500,) int64
        The digit that each image shows, 0 to 9.

    References
    ----------
    Alpaydin and Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning
    Repository, 1998, doi:10.24432/C50P49, CC BY 4.0.
    """
    with (
        resources.files(__name__).joinpath("digits.npz").open("rb") as file,
        np.load(file, allow_pickle=False) as arrays,
    ):
        return arrays["images"] / BRIGHTEST, arrays["labels"].astype(np.int64)
