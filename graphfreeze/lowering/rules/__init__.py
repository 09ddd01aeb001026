"""lowering/rules."""
