"""One process, one model, many Sequences."""
