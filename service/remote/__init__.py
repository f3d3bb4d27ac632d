"""Models behind URIs: listed, copied to a cache of this machine, and pushed."""
