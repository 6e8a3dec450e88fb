"""The layers of `kernels.c`, compiled with the system's `cc` and called through ctypes."""

import ctypes
import subprocess
from pathlib import Path

import numpy as np

SOURCE = Path(__file__).with_name("kernels.c")
SLIPS = {
    "rms_norm": {
        "not summed": ("along += (double)", "along = (double)"),
        "overwritten": ("dgamma[j] += di", "dgamma[j] = di"),
        "square": ("* scale * scale * scale;", "* scale * scale;"),
        "stride": ("*di = dout + i * n;", "*di = dout + i;"),
    },
    "gelu": {
        "cube": ("1 + 3 * A", "1 + A"),
        "half": ("0.5f * (1 + t) +", "(1 + t) +"),
        "slope": ("(1 - t * t) * inner", "(1 - t) * inner"),
        "inner": ("(1 - t * t) * inner", "(1 - t * t)"),
    },
}  # fmt: skip


def load(folder, source=None):
    """Compile the source into a folder, and return (forward, backward) by name."""
    file, library = Path(folder) / "kernels.c", Path(folder) / "kernels.so"
    file.write_text(source or SOURCE.read_text())
    subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", library, file, "-lm"], check=True)
    c = ctypes.CDLL(str(library))

    def call(name, outputs, *arrays, sizes):
        arrays = [np.ascontiguousarray(a, np.float32) for a in arrays]
        made = [np.zeros(shape, np.float32) for shape in outputs]
        pointers = [ctypes.c_void_p(a.ctypes.data) for a in (*arrays, *made)]
        getattr(c, name)(*pointers[: len(arrays)], *sizes, *pointers[len(arrays) :])
        return made

    def rms_norm(x, gamma):
        return call("rms_norm_forward", [x.shape], x, gamma, sizes=x.shape)[0]

    def rms_norm_backward(dout, x, gamma):
        return call("rms_norm_backward", [x.shape, gamma.shape], dout, x, gamma, sizes=x.shape)

    def gelu(x):
        return call("gelu_forward", [x.shape], x, sizes=(x.size,))[0]

    def gelu_backward(dout, x):
        return call("gelu_backward", [x.shape], dout, x, sizes=(x.size,))[0]

    return {"rms_norm": (rms_norm, rms_norm_backward), "gelu": (gelu, gelu_backward)}
