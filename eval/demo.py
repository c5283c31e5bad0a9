"""The built-in demo corpus: the docstrings of Python's own standard library.

Real text that is on every machine. Sources are parsed, not imported, so nothing runs; only a few
modules without a source, all harmless, are asked for their docstrings. The documents depend on
the Python version and on nothing else: parts that distributions ship apart are left out.

`demo_collection` makes known-item queries of them: the first sentence of a docstring asks for the
rest, which is indexed without that sentence.
"""

from __future__ import annotations

import ast
import builtins
import importlib
import inspect
import json
import random
import re
import sys
import sysconfig
import tokenize
import types
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from dupmae.errors import DataError
from dupmae.eval.beir import Collection, load_beir
from dupmae.eval.files import replacing_text
from dupmae.types import Document

_LEFT_OUT = {
    "antigravity",  # a joke, as is "this"
    "distutils",  # packaged apart by distributions, as are most below
    "encodings",  # hundreds of codecs that say the same
    "ensurepip",
    "idlelib",
    "lib2to3",
    "msilib",
    "ntpath",  # the twin of os.path for another system
    "pydoc_data",
    "this",
    "tkinter",
    "turtledemo",
    "venv",
}

_PUBLIC_NAMES = {
    "_collections_abc": "collections.abc",
    "_pydatetime": "datetime",
    "_pydecimal": "decimal",
    "_pyio": "io",
    "pathlib._local": "pathlib",
    "posixpath": "os.path",
}
"""Modules whose source has another name than the one they are known by."""

_WITHOUT_SOURCE = (
    *("array", "binascii", "builtins", "cmath", "errno", "gc"),
    *("itertools", "marshal", "math", "time", "unicodedata"),
)
"""Asked for their docstrings. Not sys: shells and test runners replace its hooks."""

_MIN_WORDS = 8  # shorter docstrings only repeat the name
_MIN_QUERY_WORDS, _MAX_QUERY_WORDS = 4, 40
_MIN_REST_WORDS = 15

_Entry = tuple[str, str, str, str]  # dotted name, kind, title, docstring


def demo_documents() -> Iterator[Document]:
    """Yield one document for each docstring of the standard library, ordered by id.

    The id is the dotted name (`json.loads`), the title the name with its parameters, the text
    the docstring; metadata has `kind` (module, class, function, method, property) and `module`.
    Of equal texts only the first is kept.

    Raises:
        DataError: if the library's source is not on this machine.
    """
    entries: dict[str, Document] = {}
    for module, path in _source_files():
        for name, kind, title, text in _parsed_docstrings(module, path):
            entries.setdefault(name, _document(name, kind, title, text, module))
    if not entries:
        raise DataError(
            f"no Python sources in {sysconfig.get_path('stdlib')}, of which the demo corpus is "
            "made; index a corpus of your own"
        )
    for module in _WITHOUT_SOURCE:
        for name, kind, title, text in _live_docstrings(importlib.import_module(module)):
            entries.setdefault(name, _document(name, kind, title, text, module))
    seen: set[str] = set()
    for _, document in sorted(entries.items()):
        text = document.text
        if len(text.split()) >= _MIN_WORDS and not text.startswith(">>>") and text not in seen:
            seen.add(text)
            yield document


def demo_collection(folder: Path, *, size: int = 500, seed: int = 0) -> Collection:
    """Write the demo collection in BEIR layout and return it.

    Args:
        folder: where to write `corpus.jsonl`, `queries.jsonl` and `qrels/test.tsv`.
        size: how many queries at most.
        seed: which of the possible queries.
    """
    documents = list(demo_documents())
    targets = _known_items(documents)
    chosen = sorted(random.Random(seed).sample(sorted(targets), min(size, len(targets))))
    sentences = {doc_id: targets[doc_id][0] for doc_id in chosen}
    with replacing_text(folder / "corpus.jsonl") as corpus:
        for document in documents:
            is_target = document.doc_id in sentences
            text = targets[document.doc_id][1] if is_target else document.text
            corpus.write(_corpus_line(replace(document, text=text)))
    with replacing_text(folder / "queries.jsonl") as queries:
        for doc_id, sentence in sentences.items():
            queries.write(json.dumps({"_id": _query_id(doc_id), "text": sentence}) + "\n")
    with replacing_text(folder / "qrels" / "test.tsv") as qrels:
        qrels.write("query-id\tcorpus-id\tscore\n")
        qrels.writelines(f"{_query_id(doc_id)}\t{doc_id}\t1\n" for doc_id in sentences)
    return load_beir(folder, "test", name="demo")


def _query_id(doc_id: str) -> str:
    """Name a query after its target, but not like it: a query's own id never counts as a hit."""
    return f"about-{doc_id}"


def _corpus_line(document: Document) -> str:
    record = {
        "_id": document.doc_id,
        "title": document.title,
        "text": document.text,
        "metadata": dict(document.metadata),
    }
    return json.dumps(record) + "\n"


def _known_items(documents: Sequence[Document]) -> dict[str, tuple[str, str]]:
    """Return the first sentence and the rest of each document that they point to without doubt.

    A sentence or a rest that several documents share would have more than one right answer.
    """
    parts = {document.doc_id: _first_sentence(document.text) for document in documents}
    sentences = Counter(sentence.lower() for sentence, _ in parts.values())
    rests = Counter(rest for _, rest in parts.values())
    return {
        doc_id: (sentence, rest)
        for doc_id, (sentence, rest) in parts.items()
        if sentences[sentence.lower()] == 1
        and rests[rest] == 1
        and _MIN_QUERY_WORDS <= len(sentence.split()) <= _MAX_QUERY_WORDS
        and len(rest.split()) >= _MIN_REST_WORDS
        and not re.match(r"\S+\(.*\)|.*(->|--|::|>>>)", sentence)  # signature, table, session
    }


def _first_sentence(text: str) -> tuple[str, str]:
    """Split a docstring after its first sentence, which ends at the latest with its paragraph."""
    paragraph, _, rest = text.partition("\n\n")
    end = re.search(r"(?<!e\.g)(?<!i\.e)[.!?](?=\s+[A-Z`'\"(*])", paragraph)
    if end:
        paragraph, rest = paragraph[: end.end()], text[end.end() :]
    return " ".join(paragraph.split()), rest.strip()


def _document(name: str, kind: str, title: str, text: str, module: str) -> Document:
    return Document(name, text, title, {"kind": kind, "module": module})


def _source_files() -> Iterator[tuple[str, Path]]:
    """Yield name and file of each public module that has a Python source, in a fixed order."""
    root = Path(sysconfig.get_path("stdlib"))
    for top in sorted(sys.stdlib_module_names - _LEFT_OUT):
        for path in (root / f"{top}.py", *sorted((root / top).rglob("*.py"))):
            parts = path.relative_to(root).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            name = _PUBLIC_NAMES.get(name, name)
            is_public = not any(part.startswith(("_", "test")) for part in name.split("."))
            if is_public and path.is_file():
                yield name, path


def _parsed_docstrings(module: str, path: Path) -> Iterator[_Entry]:
    with tokenize.open(path) as stream, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on old escapes, which are the library's own affair
        tree = ast.parse(stream.read())
    if docstring := ast.get_docstring(tree):
        yield module, "module", f"module {module}", docstring
    yield from _definitions(tree.body, module, in_class=False)


def _definitions(body: Sequence[ast.stmt], prefix: str, *, in_class: bool) -> Iterator[_Entry]:
    """Yield the public definitions in a block, and in those nested in it by if, try or class."""
    for node in body:
        if isinstance(node, (ast.If, ast.Try)):
            handlers = node.handlers if isinstance(node, ast.Try) else []
            for block in (node.body, *(handler.body for handler in handlers), node.orelse):
                yield from _definitions(block, prefix, in_class=in_class)
        elif not isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        elif not node.name.startswith("_"):
            name = f"{prefix}.{node.name}"
            if docstring := ast.get_docstring(node):
                yield name, *_kind_and_title(node, name, in_class=in_class), docstring
            if isinstance(node, ast.ClassDef):
                yield from _definitions(node.body, name, in_class=True)


def _kind_and_title(
    node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef, name: str, *, in_class: bool
) -> tuple[str, str]:
    if isinstance(node, ast.ClassDef):
        return "class", f"class {name}"
    decorators = {ast.unparse(decorator) for decorator in node.decorator_list}
    if decorators & {"property", "cached_property", "functools.cached_property"}:
        return "property", name
    parameters = ast.unparse(node.args)
    if in_class and "staticmethod" not in decorators:
        parameters = re.sub(r"^(self|cls)\b(, /)?(, )?", "", parameters)
    return "method" if in_class else "function", f"{name}({parameters})"


def _live_docstrings(module: types.ModuleType) -> Iterator[_Entry]:
    """Yield the docstrings of a module that is written in C."""
    if module.__doc__:
        yield module.__name__, "module", f"module {module.__name__}", _clean(module)
    for name, member in sorted(vars(module).items()):
        dotted = name if module is builtins else f"{module.__name__}.{name}"
        if name.startswith("_") or not member.__doc__:
            continue
        if isinstance(member, types.BuiltinFunctionType):
            yield dotted, "function", f"{dotted}{_signature(member)}", _clean(member)
        elif isinstance(member, type) and member.__module__ == module.__name__:
            yield dotted, "class", f"class {dotted}", _clean(member)
            for method_name, method in sorted(vars(member).items()):
                if callable(method) and not method_name.startswith("_") and method.__doc__:
                    title = f"{dotted}.{method_name}{_signature(method)}"
                    yield f"{dotted}.{method_name}", "method", title, _clean(method)


def _clean(described: object) -> str:
    return inspect.cleandoc(described.__doc__ or "")


def _signature(function: object) -> str:
    """Return the parameters that C code states, without its first where that is the object."""
    stated = getattr(function, "__text_signature__", None)
    return re.sub(r"\$\w+(, /)?(, )?", "", stated) if stated else "()"
