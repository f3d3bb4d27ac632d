"""Paths to calls. No mathematics and no formats here: see `models` and `service.codec`."""
