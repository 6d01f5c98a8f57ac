"""Measurements, for docs/performance.md; no test runs them."""
