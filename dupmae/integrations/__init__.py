"""What other libraries and agents reach an index or a model by; each module needs its extra."""
