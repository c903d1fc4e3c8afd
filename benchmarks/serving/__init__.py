"""What `benchmarks.online` measures: ours, what stands beside it, and the load on both."""
