"""Random configurations of every family against autograd: `python -m tests.random_flows`."""
