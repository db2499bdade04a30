"""The benchmarks: each figure beside the floor under it, both measured in the same run. `python -m bench` prints them all."""
