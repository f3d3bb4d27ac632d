"""Trained models that ship with the package; `tools/zoo` makes them."""
