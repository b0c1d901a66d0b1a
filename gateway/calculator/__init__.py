"""A calculator that a model uses in the middle of its answer: arithmetic, the calls, and the loop that answers them."""
