"""The index's schema, as numbered SQL files that are applied forward only."""
