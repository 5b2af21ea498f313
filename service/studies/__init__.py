"""Studies: which specs to search, what may rank them, and what their results show."""
