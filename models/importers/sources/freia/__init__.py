"""FrEIA: sequences and graphs of coupling blocks and permutations over vectors."""
