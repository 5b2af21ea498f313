"""What the benchmark of the service under load is made of: see ``tests.bench.bench_load``."""
