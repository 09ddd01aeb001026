"""What `tools/coverage` converts: one file for each kind of case, and the measuring."""
