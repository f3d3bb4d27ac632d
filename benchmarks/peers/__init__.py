"""Other model servers with the same torch module: small scripts run in an environment apart."""
