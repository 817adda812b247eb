"""The paper's benchmarks, read from the annotation files that their makers publish."""

from timesformer.video.benchmarks.read import (
    Benchmark,
    benchmark_entries,
    benchmark_name,
    benchmark_splits,
    read_benchmark,
)

__all__ = ["Benchmark", "benchmark_entries", "benchmark_name", "benchmark_splits", "read_benchmark"]
