"""Evaluation: collections, systems, runs, measures, statistics, reports.

Knows no engine and no model: `evaluate` takes whatever answers queries.
"""

from dupmae.eval.beir import Collection, default_split, find_collection, load_beir, tuning_split
from dupmae.eval.browser import Chapter, shown_documents
from dupmae.eval.catalogue import open_collection, parts_of
from dupmae.eval.demo import demo_collection, demo_documents
from dupmae.eval.download import fetch_collection
from dupmae.eval.evaluate import evaluate
from dupmae.eval.gate import Earlier, Fall, falls
from dupmae.eval.metrics import MEASURES, aggregate, measure_run
from dupmae.eval.moves import Explained, Move, largest_moves
from dupmae.eval.page import html_page
from dupmae.eval.report import Report
from dupmae.eval.runs import Run, read_run, write_run
from dupmae.eval.statistics import Comparison, Statistics, compare
from dupmae.eval.summary import Summary
from dupmae.eval.systems import Answers, Recorded, Searcher, System, Weighted, own_systems

__all__ = [
    "MEASURES",
    "Answers",
    "Chapter",
    "Collection",
    "Comparison",
    "Earlier",
    "Explained",
    "Fall",
    "Move",
    "Recorded",
    "Report",
    "Run",
    "Searcher",
    "Statistics",
    "Summary",
    "System",
    "Weighted",
    "aggregate",
    "compare",
    "default_split",
    "demo_collection",
    "demo_documents",
    "evaluate",
    "falls",
    "fetch_collection",
    "find_collection",
    "html_page",
    "largest_moves",
    "load_beir",
    "measure_run",
    "open_collection",
    "own_systems",
    "parts_of",
    "read_run",
    "shown_documents",
    "tuning_split",
    "write_run",
]
