"""Measurements that anybody can repeat: one `bench_*.py` a question (see README.md)."""
