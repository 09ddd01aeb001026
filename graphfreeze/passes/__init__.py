"""Rewrites of SavedModels: masked reads of frozen variables, and folding trained values back."""
