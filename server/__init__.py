"""The registry API over HTTP/1.1, served from the engine's cache."""
