"""One module a command of `pushforward`; torch is imported when a command runs, not before."""
