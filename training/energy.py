"""Energy of a stretch of work: read where the machine counts it, estimated where it does not.

A processor's counters (RAPL) are of the whole machine, other work on it included, and most systems let root alone read
them. Without them: the time that our own processes kept cores busy, times what a busy core is taken to draw. A GPU is
asked for its power now and then.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

WATTS_A_CORE = 10.0
"""What a busy core is taken to draw, its share of memory and board included: a laptop's 5, a desktop's 15."""

_COUNTERS = Path("/sys/class/powercap")
_EVERY = 0.5  # seconds between two looks at a GPU's power


class EnergyMeter:
    """Measures from its making on; `read` gives what was used so far, `close` ends it."""

    def __init__(self, counters: Path = _COUNTERS, gpu_watts: Callable[[], float] | None = None) -> None:
        """Args: counters: where Linux shows RAPL; gpu_watts: asks a GPU for its power."""
        self._counters = [Counter(folder) for folder in packages(counters)]
        self._cores = _core_seconds()
        self._gpu = None if gpu_watts is None else PowerIntegral(gpu_watts)

    def read(self) -> tuple[float, str]:
        """Joules so far, and how they were found."""
        if self._counters:
            joules, how = sum(one.joules() for one in self._counters), "the processor's own counters (whole machine)"
        else:
            busy = _core_seconds() - self._cores
            joules = busy * WATTS_A_CORE
            how = f"estimated: {busy:.0f} s of busy cores at an assumed {WATTS_A_CORE:.0f} W each"
        if self._gpu is not None:
            joules, how = joules + self._gpu.joules, f"{how}; GPU: its power, asked every {_EVERY:g} s"
        return joules, how

    def close(self) -> None:
        """Ask the GPU no more."""
        if self._gpu is not None:
            self._gpu.close()


class Counter:
    """One package's counter of microjoules, which begins anew at its range."""

    def __init__(self, folder: Path) -> None:
        """`folder`: as in /sys/class/powercap/intel-rapl:0."""
        self._value, self._range = folder / "energy_uj", int((folder / "max_energy_range_uj").read_text())
        self._begun = int(self._value.read_text())

    def joules(self) -> float:
        """Since the beginning; wrong if the counter went round twice, which takes an hour at full load and more."""
        return (int(self._value.read_text()) - self._begun) % self._range / 1e6


def packages(folder: Path) -> Sequence[Path]:
    """Packages whose counter can be read; parts of them (cores, memory) are in them."""
    return [
        one
        for one in sorted(folder.glob("intel-rapl:*"))
        if one.name.count(":") == 1 and os.access(one / "energy_uj", os.R_OK)
    ]


class PowerIntegral:
    """Asks for a power now and then, and sums it up over time."""

    def __init__(self, watts: Callable[[], float], every: float = _EVERY) -> None:
        """`watts` is called in a thread of its own, `every` so many seconds."""
        self.joules = 0.0
        self._watts, self._every, self._over = watts, every, threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop asking."""
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        last = time.monotonic()
        while not self._over.wait(self._every):
            now = time.monotonic()
            self.joules += self._watts() * (now - last)
            last = now


def _core_seconds() -> float:
    """CPU time of this process and of those that it started and that ended."""
    return sum(os.times()[:4])
