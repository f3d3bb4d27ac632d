"""Evidence for `/score`: data, flows, peers and the tables of docs/scoring.md."""
