"""What CI runs: the set-up scripts and the benchmarks."""
