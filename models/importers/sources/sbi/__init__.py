"""sbi: density estimators of simulation-based inference, built of nflows or of zuko."""
