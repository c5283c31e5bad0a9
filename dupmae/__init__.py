"""DupMAE Search: one encoder, two vectors, one score, and every answer proven.

Holds the package's version and nothing heavy: import what you need from `dupmae.encoder`,
`dupmae.engine` and `dupmae.eval`.
"""

__version__ = "0.1.0"
