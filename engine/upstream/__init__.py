"""Upstream registries: tokens, redirects, deadlines, pauses, retries. The only outbound HTTP."""
