"""Evaluation: collections, runs, measures.

Knows no engine and no model: `evaluate` takes whatever has `search_batch`.
"""

from dupmae.eval.beir import Collection, default_split, find_collection, load_beir
from dupmae.eval.catalogue import open_collection
from dupmae.eval.demo import demo_collection, demo_documents
from dupmae.eval.download import fetch_collection
from dupmae.eval.evaluate import SYSTEMS, Searcher, System, evaluate
from dupmae.eval.metrics import MEASURES, aggregate, measure_run
from dupmae.eval.report import Report
from dupmae.eval.runs import Run, read_run, write_run

__all__ = [
    "MEASURES",
    "SYSTEMS",
    "Collection",
    "Report",
    "Run",
    "Searcher",
    "System",
    "aggregate",
    "default_split",
    "demo_collection",
    "demo_documents",
    "evaluate",
    "fetch_collection",
    "find_collection",
    "load_beir",
    "measure_run",
    "open_collection",
    "read_run",
    "write_run",
]
