"""What is served, and everything that runs it."""
