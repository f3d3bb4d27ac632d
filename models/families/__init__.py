"""Architectures, one a file: a validated configuration and the flow it stands for."""
