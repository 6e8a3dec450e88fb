"""Heat maps as images: a grid's colours as PNG, one for a light page and one for a dark one.

A status gives the hue, the relative difference the depth. What agrees stays calm whatever its
relative difference: where rounding explains it, it is nothing to look at.
"""

from __future__ import annotations

import base64
import struct
import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastcheck.report.plot_data import Grid, unpacked
from fastcheck.verdict.rules import AGREE, CANNOT_TELL, KINK, STATUSES, WRONG

__all__ = ["DARK", "LIGHT", "Cells", "Colours", "image"]

LEVELS = 16
AGREEING, WRONG_FROM = 1, 1 + LEVELS  # 0 is what was not checked
KINK_COLOUR, CANNOT_TELL_COLOUR = 1 + 2 * LEVELS, 2 + 2 * LEVELS
# Decades that the ramps span, up to a relative difference of 1.
AGREEING_DECADES, WRONG_DECADES = 16.0, 7.0


@dataclass(frozen=True)
class Colours:
    """The colours of one theme: ramps from the smallest difference to the largest."""

    unchecked: str
    agree: tuple[str, str]
    wrong: tuple[str, str]
    kink: str
    cannot_tell: str

    @property
    def palette(self) -> list[tuple[int, int, int]]:
        """All colours in the order of `levels`."""
        ramps = [*_ramp(*self.agree), *_ramp(*self.wrong)]
        return [_rgb(self.unchecked), *ramps, _rgb(self.kink), _rgb(self.cannot_tell)]


LIGHT = Colours("#ffffff", ("#eaf0f5", "#86abc9"), ("#f08a70", "#b3001f"), "#8a5cc7", "#e0a100")
DARK = Colours("#12161b", ("#1c2833", "#3f6b8c"), ("#b8432f", "#ff5a63"), "#a988e8", "#e6b433")


@dataclass(frozen=True)
class Cells:
    """A grid unpacked: arrays of shape (rows, columns)."""

    place: NDArray[np.uint32]
    gradient: NDArray[np.float64]
    approximation: NDArray[np.float64]
    status: NDArray[np.uint8]
    wrong: NDArray[np.uint32]

    @classmethod
    def of(cls, grid: Grid) -> Cells:
        """Unpack a grid."""
        dtypes = {"place": "u4", "gradient": "f8", "approximation": "f8", "status": "u1"}
        dtypes["wrong"] = "u4"
        return cls(
            **{k: unpacked(getattr(grid, k), d).reshape(grid.cells) for k, d in dtypes.items()}
        )

    @property
    def relative(self) -> NDArray[np.float64]:
        """|g − g_approx| / (|g| + |g_approx|); 1 where a value is not finite."""
        with np.errstate(all="ignore"):
            error = 0.5 * np.abs(self.gradient - self.approximation)
            size = 0.5 * np.abs(self.gradient) + 0.5 * np.abs(self.approximation)
            found = np.where(error == 0.0, 0.0, error / size)
        return np.where(found <= 1.0, found, 1.0)

    @property
    def levels(self) -> NDArray[np.uint8]:
        """Which colour of the palette each cell has."""
        with np.errstate(divide="ignore"):
            decades = np.log10(self.relative)
        levels = np.zeros(self.status.shape, np.uint8)
        agree, wrong = self.status == AGREE, self.status == WRONG
        levels[agree] = AGREEING + _level(decades[agree], AGREEING_DECADES)
        levels[wrong] = WRONG_FROM + _level(decades[wrong], WRONG_DECADES)
        levels[self.status == KINK] = KINK_COLOUR
        levels[self.status == CANNOT_TELL] = CANNOT_TELL_COLOUR
        return levels

    def margin(self, axis: int) -> NDArray[np.uint8]:
        """Return the colour of the worst cell of each column (axis 0) or row (axis 1)."""
        severity = np.where(self.status < len(STATUSES), self.status + 1.0, 0.0)
        worst = (2.0 * severity + self.relative).argmax(axis=axis)
        return np.take_along_axis(self.levels, np.expand_dims(worst, axis), axis)


def _level(decades: NDArray[np.float64], span: float) -> NDArray[np.uint8]:
    share = np.clip((decades + span) / span, 0.0, 1.0)
    return np.rint(share * (LEVELS - 1)).astype(np.uint8)


def image(levels: NDArray[np.uint8], colours: Colours) -> str:
    """Return an image of palette colours as a `data:` address.

    Parameters
    ----------
    levels : ndarray, shape (height, width), uint8
    colours : Colours
    """
    height, width = levels.shape
    rows = np.zeros((height, width + 1), np.uint8)  # each row starts with its filter: none
    rows[:, 1:] = levels
    palette = b"".join(bytes(colour) for colour in colours.palette)
    parts = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)),
        (b"PLTE", palette),
        (b"IDAT", zlib.compress(rows.tobytes(), 9)),
        (b"IEND", b""),
    ]
    png = b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*part) for part in parts)
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def _chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def _rgb(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def _ramp(first: str, last: str) -> list[tuple[int, int, int]]:
    ends = np.array([_rgb(first), _rgb(last)], dtype=np.float64)
    share = np.linspace(0.0, 1.0, LEVELS)[:, np.newaxis]
    mixed = np.rint(ends[0] * (1 - share) + ends[1] * share).astype(int)
    return [(int(r), int(g), int(b)) for r, g, b in mixed]
