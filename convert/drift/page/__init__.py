"""What the page of `drift --html` is made of: markup, its style, tables, charts, and sections of them."""
