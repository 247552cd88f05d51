"""The engine: framing, plan, pixels, chunks. Knows nothing of the command line."""
