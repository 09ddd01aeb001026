"""Gradients of onnxruntime-training beside those of artifacts; see `tools/oracle`."""
