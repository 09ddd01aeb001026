"""Artifacts trained in Node and in a browser, beside `Trainer`; see `tools/web`."""
