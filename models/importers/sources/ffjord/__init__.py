"""Flows of FFJORD's authors."""
