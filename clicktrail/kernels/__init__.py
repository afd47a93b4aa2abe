"""The inner loops, compiled by numba on first use and cached beside the source (or in NUMBA_CACHE_DIR).

Plain loops over int64 arrays that know nothing of Arrow or Feast. Arrays that are only read come in
read-only (`readonly`), since numba compiles once more for each kind of array.
"""
