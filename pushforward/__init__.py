"""Serve trained normalizing flows over HTTP, train them, look into them."""
