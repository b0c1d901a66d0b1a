"""Looking at and steering the gateway itself."""
