"""CUDA graphs: a whole batch, from pinned memory to pinned memory, by one launch.

Imported only where a model computes on a CUDA device.
"""
