"""How gpt-oss is laid out in files: one module, and in it one table, per layout."""
