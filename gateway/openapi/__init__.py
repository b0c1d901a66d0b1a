"""The description of the HTTP interface that is published at /openapi.json."""
