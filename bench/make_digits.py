"""Make `fastcheck/reference/data/digits.npz` from the digits that scikit-learn carries.

Run once, in a checkout with the `sklearn` extra installed: `python bench/make_digits.py`.
The choice is the first 50 images of each digit in scikit-learn's order, kept in that order,
so that every run writes the same bytes.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

PER_DIGIT = 50
TARGET = Path(__file__).resolve().parent.parent / "fastcheck" / "data" / "digits.npz"


def main() -> None:
    images, labels = load_digits(return_X_y=True)
    chosen = np.sort(
        np.concatenate([np.flatnonzero(labels == digit)[:PER_DIGIT] for digit in range(10)])
    )
    np.savez_compressed(
        TARGET, images=images[chosen].astype(np.uint8), labels=labels[chosen].astype(np.uint8)
    )
    print(f"{TARGET.name}: {chosen.size} images, {TARGET.stat().st_size} bytes")


if __name__ == "__main__":
    main()
