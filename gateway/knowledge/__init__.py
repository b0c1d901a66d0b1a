"""Documents of one's own for a specialist: an index made by `coe knowledge`, and what is looked up in it for a chat."""
