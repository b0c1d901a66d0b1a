"""Which specialist should answer a query."""
