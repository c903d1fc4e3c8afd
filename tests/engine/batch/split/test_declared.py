from __future__ import annotations

from pathlib import Path

import pytest

from inferay.engine.batch.spec import JobSettings
from inferay.engine.batch.split.declared import declared_table, resolve_split
from inferay.errors import InvalidInput


@pytest.fixture
def script(tmp_path: Path) -> Path:
    return tmp_path / "score.py"


@pytest.mark.parametrize(("text", "table"), [
    ("import pandas\ndef run(batch: pandas.DataFrame): ...", "pandas"),
    ("import pandas as pd\ndef run(batch: pd.DataFrame) -> list: ...", "pandas"),
    ("import pandas as pd\ndef run(batch: 'pd.DataFrame'): ...", "pandas"),
    ("from pandas import DataFrame\ndef run(batch: DataFrame): ...", "pandas"),
    ("from pandas import DataFrame as Frame\ndef run(x: Frame, /): ...", "pandas"),
    ("from pandas.core.frame import DataFrame\ndef run(x: DataFrame): ...", "pandas"),
    ("import pyarrow\ndef run(batch: pyarrow.Table): ...", "pyarrow"),
    ("import pyarrow as pa\ndef run(batch: pa.Table): ...", "pyarrow"),
    ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import pandas as pd\n"
     "def run(batch: 'pd.DataFrame'): ...", "pandas"),
    ("def run(mini_batch): ...", ""),
    ("def run(mini_batch: list[str]): ...", ""),
    ("def run(): ...", ""),
    ("from mine import DataFrame\ndef run(batch: DataFrame): ...", ""),
    ("from .pandas import DataFrame\ndef run(batch: DataFrame): ...", ""),
    ("import pandas as pd\ndef init(x: pd.DataFrame): ...\ndef run(paths): ...", ""),
    ("import pandas as pd\nclass A:\n    def run(self: pd.DataFrame): ...\ndef run(x): ...", ""),
    ("def run(batch: 'not python ('): ...", ""),
    ("def run(", ""), ("raise SystemExit\nimport os; os.abort()", ""),
])
def test_a_table_is_declared_by_the_annotation_of_run_s_first_parameter(
    script: Path, text: str, table: str
) -> None:
    script.write_text(text)
    assert declared_table(script) == table


def test_a_script_that_is_missing_or_no_text_declares_nothing(script: Path) -> None:
    assert declared_table(script) == ""
    script.write_bytes(b"\0\xff")
    assert declared_table(script) == ""


TABLE, PATHS = "import pandas\ndef run(batch: pandas.DataFrame): ...", "def run(mini_batch): ..."


@pytest.mark.parametrize(("text", "wanted", "split", "table"), [
    (TABLE, "auto", "rows", "pandas"), (PATHS, "auto", "file", ""),
    (TABLE, "file", "file", "pandas"), (PATHS, "file", "file", ""),
    (TABLE, "rows", "rows", "pandas"), (PATHS, "rows", "rows", "pandas"),
])
def test_auto_cuts_for_scripts_that_declare_a_table(
    script: Path, text: str, wanted: str, split: str, table: str
) -> None:
    script.write_text(text)
    found = resolve_split(JobSettings(), wanted, script)
    assert (found.split, found.table) == (split, table)


def test_a_mini_batch_in_rows_takes_a_script_of_tables(script: Path) -> None:
    script.write_text(PATHS)
    with pytest.raises(InvalidInput, match=r"'5000 rows' counts rows, but run\(\) of score.py"):
        resolve_split(JobSettings(mini_batch_size="5000 rows"), "auto", script)
    assert resolve_split(JobSettings(mini_batch_size="5000 rows"), "rows", script).table
