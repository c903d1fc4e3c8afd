"""What `run()` takes: paths, or a table. Told from the script's text, which is never imported."""

from __future__ import annotations

import ast
from dataclasses import replace
from pathlib import Path
from typing import Any

from inferay.engine.batch.spec import JobSettings
from inferay.engine.sizes import parse_mini_batch_size
from inferay.errors import InvalidInput

#: The annotation of `run`'s first parameter, and the kind of table that it asks for.
TABLES = {
    "pandas.DataFrame": "pandas", "pandas.core.frame.DataFrame": "pandas",
    "pyarrow.Table": "pyarrow", "pyarrow.lib.Table": "pyarrow",
}  # fmt: skip


def resolve_split(settings: JobSettings, wanted: str, script: Path | None) -> JobSettings:
    """Return the settings with `split` and `table` as the script and the user have it.

    Args:
        settings: Of the job.
        wanted: `auto`, `file` or `rows`.
        script: The scoring script; None where the model scores alone, which takes pandas tables.

    Raises:
        InvalidInput: A mini-batch is given in rows, but `run()` takes paths.
    """
    if script is None:
        split = "file" if wanted == "file" else "rows"
        return replace(settings, split=split, table="pandas")
    table = declared_table(script) or ("pandas" if wanted == "rows" else "")
    split = wanted if wanted != "auto" else "rows" if table else "file"
    size = parse_mini_batch_size(settings.mini_batch_size)
    if size is not None and size.unit == "rows" and not table:
        raise InvalidInput(
            f"mini_batch_size: '{settings.mini_batch_size}' counts rows, but run() of "
            f"{script.name} takes paths of files; give a number of files or bytes, or declare "
            "run(batch: pandas.DataFrame), or set split: rows",
            target="mini_batch_size",
        )
    return replace(settings, split=split, table=table)


def declared_table(script: Path) -> str:
    """Return `pandas` or `pyarrow` if the first parameter of `run` is annotated so, else "".

    A script that cannot be read or parsed declares nothing; its import will say what is wrong.
    """
    try:
        tree = ast.parse(script.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return ""
    names: dict[str, str] = {}
    found: ast.expr | None = None
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names |= _imported(node)
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == "run":
            parameters = [*node.args.posonlyargs, *node.args.args]
            found = parameters[0].annotation if parameters else None
    return TABLES.get(_full_name(found, names), "")


def _imported(node: ast.Import | ast.ImportFrom) -> dict[str, str]:
    """Return what each imported name stands for: `pd` for `pandas`."""
    if isinstance(node, ast.Import):
        return {
            alias.asname or alias.name.split(".")[0]:
                alias.name if alias.asname else alias.name.split(".")[0]
            for alias in node.names
        }
    return {
        alias.asname or alias.name: f"{node.module}.{alias.name}"
        for alias in node.names if node.module and not node.level
    }


def _full_name(node: Any, names: dict[str, str]) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        try:
            node = ast.parse(node.value, mode="eval").body
        except SyntaxError:
            return ""
    if isinstance(node, ast.Attribute):
        return f"{_full_name(node.value, names)}.{node.attr}"
    return names.get(node.id, node.id) if isinstance(node, ast.Name) else ""
