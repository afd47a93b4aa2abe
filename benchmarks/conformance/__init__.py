"""Feast's stock stores against the cases of the time contract, beside ours: `python -m benchmarks.conformance`."""
