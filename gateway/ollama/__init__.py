"""Ollama's dialect: the same college, for clients that speak to Ollama."""
