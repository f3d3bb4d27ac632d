"""Invertible maps, one a file. A flow is a chain of them."""
