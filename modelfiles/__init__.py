"""Ollama Modelfile texts, and the code that reads and writes them."""
