"""Writes one large CSV, with quotes and newlines in its text, and a few small ones."""

from __future__ import annotations

from pathlib import Path

HEADER = "patient,age,smoker,note\n"


def main() -> None:
    data = Path(__file__).parent / "data"
    data.mkdir(exist_ok=True)
    (data / "all.csv").write_text(HEADER + "".join(map(row, range(100_000))), encoding="utf-8")
    for clinic in range(5):
        rows = map(row, range(100_000 + 10 * clinic, 100_010 + 10 * clinic))
        (data / f"clinic-{clinic}.csv").write_text(HEADER + "".join(rows), encoding="utf-8")


def row(number: int) -> str:
    """Return a patient's row; every third has a note of two lines."""
    note = f'"said ""fine"",\ncame back on day {number % 31}"' if number % 3 == 0 else ""
    return f"{number},{20 + number % 70},{number % 2},{note}\n"


if __name__ == "__main__":
    main()
