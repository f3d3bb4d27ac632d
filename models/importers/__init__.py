"""Checkpoints of public code, turned into flows with the same likelihood.

One file a code base; `sources.SOURCES` is the table. `models.import_checkpoint` is the way in.
"""
