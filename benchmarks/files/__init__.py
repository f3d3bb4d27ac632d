"""The parts of `benchmarks.bench_files`: its rows, who else computes them, and what it takes."""
