"""The page at / in a real browser: what a user sees and does."""
