"""Compiles the loops that a bundle's answers need, where there is no state to read yet: `python -m serving.warm`.

Run from the bundle's `src` while its image is built, so that the first start finds them in NUMBA_CACHE_DIR.
"""

from __future__ import annotations

import sys
from pathlib import Path

from clicktrail.catalogue import HISTORY_SCHEMA, Catalogue
from clicktrail.state_reader import compile_kernels
from serving import manifest as manifests
from serving.checks import check_goldens
from serving.manifest import RefusedError
from serving.model import Model


def main() -> int:
    """Compile for the bundle that this code lies in."""
    try:
        model = Model.load(manifests.read(Path(__file__).resolve().parent.parent.parent))
        check_goldens(model)
    except RefusedError as error:
        sys.stderr.write(f"REFUSED: {error}\n")
        return 1
    compile_kernels(model.declarations, Catalogue(HISTORY_SCHEMA.empty_table()))
    sys.stdout.write(f"ok  kernels: of {len(model.declarations)} views compiled\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
