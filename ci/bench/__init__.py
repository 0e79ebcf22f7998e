"""The benchmarks: `python -m ci.bench` measures each figure beside its baseline, in turns, in one run."""
