"""The cache engine: what is stored, what is being filled, what upstream says. No HTTP serving."""
