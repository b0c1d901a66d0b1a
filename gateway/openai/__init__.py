"""The OpenAI dialect: schemas, mapping and routes."""
