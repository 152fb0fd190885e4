"""Benchmarks of the package beside plain Prefect, prefect-shell and no Prefect at all."""
