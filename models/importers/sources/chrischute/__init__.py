"""Flows of chrischute/glow and chrischute/real-nvp."""
