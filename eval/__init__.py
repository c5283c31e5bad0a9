"""Evaluation: collections, runs, measures."""
