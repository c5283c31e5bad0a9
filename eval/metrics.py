"""Measures by their ir_measures names, for each query and over all.

ir_measures hands most of them to trec_eval's code. A run enters with `falling_scores`, so that
its order, and not a rule for ties, decides: the same numbers come out of its TREC file. It is
imported where it is used, since it comes with the extra [eval] only.
"""

from __future__ import annotations

import ast
import difflib
import subprocess
from collections.abc import Sequence
from typing import Any

from dupmae.errors import UsageError
from dupmae.eval.beir import Qrels
from dupmae.eval.runs import Run, falling_columns

MEASURES = ("nDCG@10", "R@100", "RR@10", "AP")
"""What reports hold unless told otherwise."""

Values = dict[str, dict[str, float]]
"""Measure → query id → value."""


def measure_run(run: Run, qrels: Qrels, measures: Sequence[str] = MEASURES) -> Values:
    """Return each measure's value for each judged query.

    A judged query that the run does not answer gets the measure's value for an empty answer, which
    is 0 for all usual ones; an answer to a query without judgements is ignored; a document
    without a judgement counts as not relevant.

    Raises:
        UsageError: if a measure is unknown.
    """
    import ir_measures

    parsed = parse_measures(measures)
    columns = {
        query_id: falling_columns(ranking)
        for query_id, ranking in run.items()
        if ranking and query_id in qrels
    }
    values: Values = {str(measure): dict.fromkeys(qrels, 0.0) for measure in parsed}
    try:
        for depth, some in _by_depth(parsed).items():
            scores = {
                query_id: dict(zip(doc_ids[:depth], falling[:depth], strict=True))
                for query_id, (doc_ids, falling) in columns.items()
            }
            for query_id, measure, value in ir_measures.iter_calc(some, qrels, scores):
                values[str(measure)][query_id] = float(value)
    except subprocess.CalledProcessError:  # gdeval.pl, behind ERR and nDCG(dcg='exp-log2')
        raise UsageError("one of these measures is computed only for numeric query ids") from None
    return values


def _by_depth(measures: Sequence[Any]) -> dict[int | None, list[Any]]:
    """Group measures by how many hits they look at, None for all: few are fast to measure."""
    groups: dict[int | None, list[Any]] = {}
    for measure in measures:
        # Of judged documents only, a cutoff counts others than the first hits.
        is_cut = not measure.params.get("judged_only")
        groups.setdefault(measure.params.get("cutoff") if is_cut else None, []).append(measure)
    return groups


def aggregate(values: Values) -> dict[str, float]:
    """Return each measure over all queries: the mean, or the sum for measures that count."""
    totals = {}
    for name, by_query in values.items():
        (measure,) = parse_measures([name])
        aggregator = measure.aggregator()
        for value in by_query.values():
            aggregator.add(value)
        totals[name] = float(aggregator.result())
    return totals


def is_averaged(name: str) -> bool:
    """Say whether `aggregate` takes the mean of a measure, and not the sum."""
    import ir_measures

    (measure,) = parse_measures([name])
    return isinstance(measure.aggregator(), ir_measures.measures.MeanAgg)


def largest_cutoff(measures: Sequence[str]) -> int:
    """Return how many hits a query the measures look at; 0 if none of them has a cutoff."""
    cutoffs = [measure.params.get("cutoff") for measure in parse_measures(measures)]
    return max((cutoff for cutoff in cutoffs if isinstance(cutoff, int)), default=0)


def check_measures(names: Sequence[str], k: int) -> list[str]:
    """Return the full names of measures, each once, if k hits are enough for them.

    Raises:
        UsageError: if a measure is unknown or looks deeper than k.
    """
    measures = list(dict.fromkeys(str(measure) for measure in parse_measures(names)))
    if k < 1:
        raise UsageError(f"k must be 1 or more, found {k}")
    if largest_cutoff(measures) > k:
        raise UsageError(
            f"{', '.join(measures)} look at {largest_cutoff(measures)} hits a query, "
            f"but only k = {k} are searched; raise k"
        )
    return measures


def parse_measures(names: Sequence[str]) -> list[Any]:
    """Return the measures of ir_measures with these names, such as `nDCG@10` or `P(rel=2)@5`.

    Raises:
        UsageError: if a name is not a measure, or no installed library can compute it.
    """
    if not names:
        raise UsageError(f"no measure was named; try {', '.join(MEASURES)}")
    return [_parse_measure(name) for name in names]


def _parse_measure(name: str) -> Any:
    import ir_measures

    # ir_measures 0.4 parses names with ast.Num, which Python 3.14 no longer has; hence our own.
    try:
        base, parameters, at_value = _split_name(name)
    except (SyntaxError, ValueError, AttributeError, TypeError):
        raise UsageError(
            f"measure {name!r} is not of the form Name@cutoff or Name(parameter=value)@cutoff"
        ) from None
    known = ir_measures.measures.registry
    if base not in known:
        near = difflib.get_close_matches(base, known, n=1) or ["nDCG"]
        raise UsageError(f"ir_measures knows no measure {base!r}; the nearest name is {near[0]!r}")
    if at_value is not None:
        parameters[known[base].AT_PARAM] = at_value
    return _checked(known[base](**parameters), name)


def _checked(measure: Any, name: str) -> Any:
    """Return the measure if it can be computed, tried on two hits."""
    import ir_measures

    cutoff = measure.SUPPORTED_PARAMS.get("cutoff")
    if cutoff is not None and (cutoff.required or "cutoff" in measure.params):
        found = measure.params.get("cutoff")
        if type(found) is not int or found < 1:  # at 0, trec_eval's code ends the whole process
            raise UsageError(
                f"measure {name!r} needs a whole number above 0 after an @, as in P@10"
            )
    try:
        measure.validate_params()
        ir_measures.calc_aggregate([measure], {"1": {"1": 1}}, {"1": {"1": 2.0, "2": 1.0}})
    except Exception as error:  # libraries differ in what they raise
        reason = " ".join(str(error).split())
        raise UsageError(f"measure {name!r} cannot be computed: {reason}") from None
    return measure


def _split_name(name: str) -> tuple[str, dict[str, Any], Any]:
    """Take `P(rel=2)@5` apart: its name, its parameters, and what follows the @ (or None)."""
    node: Any = ast.parse(name.strip(), mode="eval").body
    at_value, parameters = None, {}
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.MatMult):
        at_value, node = ast.literal_eval(node.right), node.left
    if isinstance(node, ast.Call):
        if node.args:
            raise ValueError("parameters must be named")
        parameters = {str(each.arg): ast.literal_eval(each.value) for each in node.keywords}
        node = node.func
    return node.id, parameters, at_value
