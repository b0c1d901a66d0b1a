"""How models say that they want a function called: one table of formats, and incremental parsers for them.

Works on text alone. Knows neither tokens and templates (`engine.tool_prompt` renders, `engine.tool_grammar` enforces)
nor HTTP; the gateway turns what the parser says into its dialects.
"""
