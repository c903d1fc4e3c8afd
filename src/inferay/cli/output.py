"""What a command shows: `-o json|jsonl|yaml|table|tsv` and `--query`, as Azure's CLI does."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from typing import Any

import jmespath
import yaml
from jmespath.exceptions import JMESPathError

from inferay.errors import InvalidInput

FORMATS = ("json", "jsonc", "jsonl", "yaml", "yamlc", "table", "tsv", "none")


def show(value: Any, output: str | None, query: str | None) -> None:
    """Print a result to stdout, reduced by a JMESPath query; as JSON where no format is asked for.

    Raises:
        InvalidInput: The query is not valid.
    """
    if query:
        value = apply_query(value, query)
    if value is None or output == "none":
        return
    sys.stdout.write(render(value, output or "json"))
    sys.stdout.flush()


def apply_query(value: Any, query: str) -> Any:
    """Return what a JMESPath query finds.

    Raises:
        InvalidInput: The query is not valid.
    """
    try:
        return jmespath.search(query, value)
    except JMESPathError as error:
        reason = str(error).splitlines()[0]
        raise InvalidInput(f"--query {query}: {reason}", target="--query") from None


def render(value: Any, output: str) -> str:
    """Return a result as text that ends with a newline."""
    if output in ("yaml", "yamlc"):
        text = yaml.safe_dump(value, sort_keys=False, allow_unicode=True, default_flow_style=False)
        return text.removesuffix("...\n") if not isinstance(value, dict | list) else text
    if output == "tsv":
        return _tsv(value)
    if output == "jsonl":
        rows = value if isinstance(value, list) else [value]
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    if output == "table":
        return table(value)
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def _tsv(value: Any) -> str:
    rows = value if isinstance(value, list) else [value]
    lines = []
    for row in rows:
        if isinstance(row, dict):
            cells = [row[key] for key in row]
        elif isinstance(row, list):
            cells = row
        else:
            cells = [row]
        lines.append("\t".join(_cell(cell) for cell in cells))
    return "".join(f"{line}\n" for line in lines)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict | list):
        return json.dumps(value)
    return str(value).replace("\t", " ").replace("\n", " ")


def table(value: Any) -> str:
    """Return a list of objects, or one, as a table with a line each."""
    from rich.console import Console
    from rich.table import Table

    rows = value if isinstance(value, list) else [value]
    rows = [row if isinstance(row, dict) else {"Result": row} for row in rows]
    names = list(dict.fromkeys(
        name for row in rows for name, cell in row.items() if not isinstance(cell, dict | list)
    ))
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in names:
        table.add_column(_title(name), overflow="fold")
    for row in rows:
        table.add_row(*(_cell(row.get(name)) for name in names))
    console = Console(width=None if sys.stdout.isatty() else 500, highlight=False, markup=False)
    with console.capture() as capture:
        console.print(table)
    return "\n".join(line.rstrip() for line in capture.get().splitlines()) + "\n"


@contextlib.contextmanager
def upload_bar(*, is_silent: bool) -> Iterator[Callable[[str, int, int], None] | None]:
    """Give what shows on stderr how far an upload is; None where no terminal would show it."""
    if is_silent or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn()
    )
    tasks: dict[str, Any] = {}
    with Progress(*columns, console=Console(stderr=True)) as bars:

        def show_progress(what: str, done_bytes: int, total_bytes: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total_bytes)
            bars.update(tasks[what], completed=done_bytes)

        yield show_progress


def _title(name: str) -> str:
    return "".join(word.capitalize() for word in name.split("_"))
