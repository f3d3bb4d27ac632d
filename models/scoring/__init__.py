"""Anomaly scores with a promise: statistics, conformal p-values, calibrations; no torch."""
