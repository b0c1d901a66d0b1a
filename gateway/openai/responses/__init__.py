"""OpenAI's Responses API: the same answers in other words, and a bounded memory of them to go on from."""
