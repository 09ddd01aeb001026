"""One file for each tool that is measured: it makes a training step of a prepared model."""
