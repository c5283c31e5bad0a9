"""Stores: forward vectors, candidate stores over them, documents."""
