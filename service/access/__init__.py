"""Who may do what: API keys, limits, and the record of what was done."""
