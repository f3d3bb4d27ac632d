"""Checkpoints of public code, turned into flows with the same likelihood.

One file a code base, in `sources`; `registry.SOURCES` lists them. `models.import_checkpoint` is
the way in.
"""
