from __future__ import annotations

import os
import tracemalloc
from pathlib import Path
from time import monotonic

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferay.engine.resources.yaml_source import FILE_BYTES_MAX, parse_yaml, read_yaml
from inferay.errors import InvalidInput

LAUGHS = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{b}: &{b} [{','.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)
CHAIN = "k0: &k0 [x]\n" + "".join(f"k{i}: &k{i} [*k{i - 1}]\n" for i in range(1, 100))
BAD: dict[str, tuple[bytes, str]] = {
    "tab": (b"name: d\nsettings:\n\tmini: 1\n", r":3:1: found a tab"),
    "syntax": (b"name: [1, 2\nb: 3\n", r":2:\d+: expected valid YAML"),
    "undefined alias": (b"a: *b\n", r":1:4: expected valid YAML"),
    "duplicate key": (b"a: 1\nb: 2\na: 3\n", r":3:1: duplicate key 'a', first given on line 1"),
    "nested duplicate": (b"s:\n  a: 1\n  a: 1\n", r":3:3: duplicate key 'a', first .* line 2"),
    "python tag": (b"a: !!python/object/apply:os.system ['x']\n", r":1:4: tag not allowed: !!pyth"),
    "custom tag": (b"a: !mine x\n", r":1:4: tag not allowed: !mine"),
    "binary tag": (b"a: !!binary aGk=\n", r"tag not allowed"),
    "set tag": (b"a: !!set {x}\n", r"tag not allowed"),
    "billion laughs": (LAUGHS.encode(), r"more than 20000 values"),
    "alias chain": (CHAIN.encode(), r"nested deeper than 50"),
    "alias of itself": (b"a: &a [*a]\n", r"nested deeper than 50"),
    "alias in merges": (
        b"a: &a {x: 1}\n" + b"".join(b"m%d: &m%d {<<: *a}\n" % (i, i) for i in range(9)) + b"<<: 5",
        r"'<<' expected a mapping",
    ),
    "wide": (b"a: [" + b"1," * 300_000 + b"]\n", r"more than 20000 values"),
    "deep flow": (b"a: " + b"[" * 200_000, r"nested deeper than 50"),
    "deep block": (b"".join(b" " * i + b"a:\n" for i in range(300)), r"nested deeper than 50"),
    "huge file": (b"a: b\n" * 10_000_000, r"larger than the limit of 1048576 bytes"),
    "empty": (b"", r"file is empty"),
    "only a comment": (b"# nothing\n", r"file is empty"),
    "only a marker": (b"---\n", r"file is empty"),
    "list on top": (b"- a\n- b\n", r":1:1: expected fields .*got a list"),
    "text on top": (b"hello\n", r":1:1: expected fields .*got 'hello'"),
    "two documents": (b"a: 1\n---\nb: 2\n", r":2:1: a second document"),
    "utf-16": ("a: 1\n".encode("utf-16"), r"expected UTF-8, got UTF-16"),
    "utf-16 without a mark": ("a: 1\n".encode("utf-16-le"), r"expected UTF-8, got UTF-16"),
    "latin-1": (b"a: 1\nb: caf\xe9\n", r":2:7: expected UTF-8, got byte 0xe9"),
    "control character": (b"a: 1\nb: \x07\n", r"expected valid YAML"),
    "long number": (b"a: " + b"1" * 5000 + b"\n", r":1:4: a number of more than 100"),
    "base-60 bomb": (b"a: 1" + b":59" * 300_000 + b"\n", r"a number of more than 100|valid YAML"),
    "not a number": (b"a: .nan\n", r":1:4: expected a finite number, got '.nan'"),
    "wrong int": (b"a: !!int x\n", r":1:4: expected int, got 'x'"),
    "mapping as key": (b"? {a: 1}\n: 2\n", r"expected text as a key"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files_are_refused_in_one_line_within_a_second_and_100_mb(
    case: str, tmp_path: Path
) -> None:
    data, pattern = BAD[case]
    path = tmp_path / "deployment.yml"
    path.write_bytes(data)
    start = monotonic()
    with pytest.raises(InvalidInput, match=pattern) as caught:
        read_yaml(path)
    assert monotonic() - start < 1
    message = str(caught.value)
    assert message.startswith(str(path))
    assert message.isprintable()
    assert len(message) < 400

    tracemalloc.start()
    with pytest.raises(InvalidInput):
        read_yaml(path)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 100e6


def test_a_missing_file_a_directory_a_device_and_a_fifo_are_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.yml")
    (tmp_path / "link.yml").symlink_to("nowhere.yml")
    for name, reason in {
        str(tmp_path / "no.yml"): "no such file",
        str(tmp_path): "a directory",
        str(tmp_path / "fifo.yml"): "a FIFO",
        str(tmp_path / "link.yml"): "a link to nowhere.yml, which does not exist",
        "/dev/zero": "a device",
        "a\0b": "unreadable",
        str(tmp_path / ("x" * 300)): "unreadable",
    }.items():
        with pytest.raises(InvalidInput, match=reason):
            read_yaml(Path(name))


def test_an_unreadable_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "d.yml"
    path.write_text("a: 1")

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("inferay.engine.resources.local_files.open", refuse, raising=False)
    with pytest.raises(InvalidInput, match=r"d\.yml: unreadable \(Permission denied\)"):
        read_yaml(path)


def test_a_byte_order_mark_is_accepted() -> None:
    assert parse_yaml(b"\xef\xbb\xbfa: 1\n", "f").data == {"a": 1}


def test_a_file_just_below_the_limit_is_read() -> None:
    text = "a: " + "x" * (FILE_BYTES_MAX - 4) + "\n"
    assert len(parse_yaml(text.encode(), "f").data["a"]) == FILE_BYTES_MAX - 4


def test_scalars_mean_what_pyyaml_says() -> None:
    document = parse_yaml("a: yes\nb: 010\nc: 1.5\nd: ~\ne: 2024-01-01\nf: '1'\n8: on\n", "f")
    assert document.data == {
        "a": True, "b": 8, "c": 1.5, "d": None, "e": "2024-01-01", "f": "1", "8": True,
    }  # fmt: skip
    assert document.texts[("a",)] == "yes"
    assert document.texts[("b",)] == "010"


def test_every_field_knows_its_line() -> None:
    document = parse_yaml("# top\na: 1\nb:\n  c:\n    - x\n    - d: 2\n", "f")
    assert document.line(("a",)) == 2
    assert document.line(("b", "c")) == 4
    assert document.line(("b", "c", 1, "d")) == 6
    assert document.positions[("b", "c", 0)] == (5, 7)
    assert document.line(("b", "missing")) == 3
    assert document.line(()) == 1


def test_merges_and_aliases_give_copies_of_their_own() -> None:
    document = parse_yaml("b: &b {x: {y: 1}}\nc: {<<: *b, z: 2}\nd: *b\n", "f")
    assert document.data["c"] == {"x": {"y": 1}, "z": 2}
    document.data["c"]["x"]["y"] = 5
    assert document.data["b"] == document.data["d"] == {"x": {"y": 1}}


def test_a_key_beside_a_merge_wins_and_the_first_merge_wins() -> None:
    text = "a: &a {x: 1, y: 1}\nb: &b {x: 2, z: 2}\nc: {<<: [*a, *b], y: 3}\n"
    assert parse_yaml(text, "f").data["c"] == {"x": 1, "y": 3, "z": 2}


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes_are_read_or_refused_in_one_printable_line(data: bytes) -> None:
    message = "f.yml"
    try:
        parse_yaml(data, "f.yml")
    except InvalidInput as error:
        message = error.message
    assert message.startswith("f.yml")
    assert message.isprintable()
