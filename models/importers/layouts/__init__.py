"""Layouts of weights that several sources share."""
