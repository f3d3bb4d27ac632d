"""The acceptance list of inputs and faults, tried on the real server at full length.

    python -m tests.reliability [--quick] [--lines 1,2,20] [--out FILE]

`make show` runs it; docs/reliability.md has what came. The test suite holds the same promises on
shorter runs; here are the ones that need an hour, a full queue or a machine to themselves.
"""
