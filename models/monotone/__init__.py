"""Increasing maps of one variable whose inverse has no formula, and the solver that finds it."""
