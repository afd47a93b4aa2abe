"""Is this batch fit to learn from? Suites generated from the contract, gate, quarantine."""
