"""The HTTP surface: OpenAI-compatible routes over the specialist pool; knows no llama.cpp."""
