"""Flows of kamenbliznashki/normalizing_flows."""
