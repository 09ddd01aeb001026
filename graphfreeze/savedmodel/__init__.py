"""The SavedModel on disk as a value: protos, object graph, checkpoint, and where the variables' handles go."""
