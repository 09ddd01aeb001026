"""Gradients of artifacts beside finite differences of the loss; see `tools/finite_differences`."""
