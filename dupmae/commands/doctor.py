"""`doctor`: whether all that is needed is there and works, and what to do where it does not."""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dupmae import __version__
from dupmae.commands.extras import EXTRAS, missing_modules
from dupmae.commands.options import index_option, json_option, load_encoder, model_option
from dupmae.errors import DupMAEError
from dupmae.hardware import describe_cpu

if TYPE_CHECKING:
    from dupmae.commands.options import AnyEncoder

PACKAGES = ("numpy", "onnxruntime", "tokenizers", "faiss-cpu", "tantivy", "lark")
"""Whose versions matter to answers and their speed."""
COMPILED = {
    "dupmae.indexes._kernels": "the loops of searches",
    "dupmae._short": "the reading of short texts",
}
"""Modules that are made where a C compiler is, and what they are for."""
LEAST_SPACE = 1 << 30
"""Bytes free below which an index of some size may not fit, and a large one cannot be merged."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What was looked at and found; `cure` if something needed is broken, `hint` if it may be."""

    name: str
    found: str
    cure: str = ""
    hint: str = ""


@click.command()
@index_option
@model_option
@json_option
@click.pass_context
def doctor(context: click.Context, index_folder: Path, model: str | None, as_json: bool) -> None:
    """Look whether all that is needed works, and say the cure where not; exit code 1 then."""
    findings = list(_findings(index_folder, model))
    broken = [finding for finding in findings if finding.cure]
    if as_json:
        checks = [asdict(finding) for finding in findings]
        click.echo(json.dumps({"ok": not broken, "checks": checks}, ensure_ascii=False))
    else:
        for finding in findings:
            click.echo(f"{'broken' if finding.cure else 'ok':<6}  {_line(finding)}")
    if broken:
        context.exit(DupMAEError.exit_code)


def _line(finding: Finding) -> str:
    advice = finding.cure or finding.hint
    return f"{finding.name:<12} {finding.found}{f'; {advice}' if advice else ''}"


def _findings(index_folder: Path, model: str | None) -> Iterator[Finding]:
    from dupmae.eval.beir import cache_folder

    yield Finding("dupmae", f"{__version__} on Python {platform.python_version()}")
    yield _system()
    yield Finding("processor", f"{os.cpu_count()} threads, {describe_cpu()}")
    yield from map(_package, PACKAGES)
    yield _compiled()
    encoder = None
    try:
        encoder = load_encoder(model)
    except (DupMAEError, ImportError) as error:
        yield Finding("model", str(error), cure="install dupmae again, or name another --model")
    else:
        yield _model(encoder, model)
        yield _self_test(encoder)
    yield _index(index_folder, encoder)
    yield _writable("index folder", _standing(index_folder))
    yield _space(_standing(index_folder))
    yield _writable("cache", _standing(cache_folder()))
    for extra, (_, use) in EXTRAS.items():
        yield _extra(extra, use)
    yield _java()


def _system() -> Finding:
    found = f"{platform.platform()}, {sys.byteorder}-endian"
    if sys.byteorder != "little":
        return Finding("system", found, cure="use a little-endian machine")
    return Finding("system", found)


def _package(name: str) -> Finding:
    try:
        return Finding(name, version(name))
    except PackageNotFoundError:
        return Finding(name, "is missing", cure=f"install it: pip install {name}")


def _compiled() -> Finding:
    missing = [what for module, what in COMPILED.items() if find_spec(module) is None]
    if missing:
        return Finding(
            "compiled",
            f"not {' and not '.join(missing)}",
            hint="install a C compiler, then dupmae again, and it is faster",
        )
    return Finding("compiled", " and ".join(COMPILED.values()))


def _model(encoder: AnyEncoder, named: str | None) -> Finding:
    """Compare the seal of the shipped model with the one on its card."""
    from dupmae.folder import shipped_model

    found = f"{encoder.name}, seal {encoder.seal[:12]}, {encoder.runtime}"
    if named is None:
        card = (shipped_model() / "README.md").read_text(encoding="utf-8")
        if encoder.seal not in card:
            return Finding("model", f"{found}, not as shipped", cure="install dupmae again")
    return Finding("model", found)


def _self_test(encoder: AnyEncoder) -> Finding:
    """Check that an answer scores higher than another text; so that no vector is NaN."""
    from dupmae.engine import SearchEngine, build_index
    from dupmae.types import Document

    texts = {"answer": "Vitamin D keeps bones from breaking.", "other": "The court has ruled."}
    documents = [Document(doc_id, text) for doc_id, text in texts.items()]
    try:
        with tempfile.TemporaryDirectory() as folder:
            build_index(documents, encoder, Path(folder))
            with SearchEngine.open(folder, encoder) as engine:
                result = engine.search("does vitamin D prevent fractures?")
    except (DupMAEError, OSError) as error:
        return Finding("self-test", str(error), cure="set TMPDIR to a folder that can be written")
    best, other = result.hits
    found = f"{best.score:.4f} for the text {best.doc_id!r}, {other.score:.4f} for {other.doc_id!r}"
    if best.doc_id != "answer" or not result.proven:
        return Finding("self-test", found, cure="install dupmae and onnxruntime again")
    return Finding("self-test", found)


def _index(folder: Path, encoder: AnyEncoder | None) -> Finding:
    """Open the index, with the encoder if there is one: so its seal and canaries are checked."""
    from dupmae.engine import SearchEngine, read_manifest

    if not folder.exists():
        return Finding("index", f"none at {folder}", hint="`dupmae index` makes one")
    try:
        manifest = read_manifest(folder)
        if encoder is not None:
            SearchEngine.open(folder, encoder).close()
    except DupMAEError as error:
        return Finding("index", f"{folder} cannot be searched", cure=str(error))
    found = f"{manifest.documents:,} documents by {manifest.encoder_name}"
    return Finding("index", f"{folder}: {found}, seal {manifest.encoder_seal[:12]}")


def _standing(folder: Path) -> Path:
    """Return the folder, or the nearest one above it that is there."""
    folder = folder.resolve()
    return next(place for place in (folder, *folder.parents) if place.is_dir())


def _writable(name: str, folder: Path) -> Finding:
    """Try to make a file in a folder."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return Finding(name, f"{folder} can be written")
    except OSError as error:
        return Finding(
            name,
            f"{folder} cannot be written ({error.strerror}), only searched",
            hint="give yourself the right to write there, or use another --index",
        )


def _space(place: Path) -> Finding:
    free = shutil.disk_usage(place).free
    found = f"{free / (1 << 30):,.1f} GiB free at {place}"
    if free < LEAST_SPACE:
        return Finding("disk", found, hint="an update or a merge may need more; make room")
    return Finding("disk", found)


def _extra(extra: str, use: str) -> Finding:
    missing = missing_modules(extra)
    if missing:
        found = f"not installed ({', '.join(missing)})"
        return Finding(f"[{extra}]", found, hint=f"for {use}: pip install 'dupmae[{extra}]'")
    return Finding(f"[{extra}]", "installed")


def _java() -> Finding:
    """Start Java, if what Lucene needs is there."""
    if missing_modules("lucene"):
        return Finding("Java", "not looked for", hint="only Lucene needs it")
    from dupmae.indexes.jvm import java_class

    try:
        found = java_class("java.lang.System").getProperty("java.version")
        return Finding("Java", f"{found}")
    except DupMAEError as error:
        return Finding("Java", "does not work", hint=str(error))
