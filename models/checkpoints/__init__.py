"""Model folders: configuration, weights and golden rows, written whole and proved at load."""
