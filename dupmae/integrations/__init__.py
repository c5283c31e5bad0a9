"""Models in the clothes of other libraries; each module needs the library of its name."""
