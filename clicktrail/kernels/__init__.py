"""The inner loops, compiled by numba on first use and cached (clicktrail.kernels.cache).

Plain loops over int64 arrays that know nothing of Arrow or Feast. Arrays that are only read come in
read-only (`readonly`), since numba compiles once more for each kind of array.
"""

from numba.core import config

from clicktrail.kernels.cache import SharedLocator

# read when a function is decorated, so before any module of this package is; others' functions go numba's own ways
config.CACHE_LOCATOR_CLASSES = ",".join(
    (
        f"{SharedLocator.__module__}.{SharedLocator.__name__}",
        "UserProvidedCacheLocator",
        "InTreeCacheLocator",
        "UserWideCacheLocator",
        "IPythonCacheLocator",
        "ZipCacheLocator",
    )
)
