"""Makes a Triton model repository of an ONNX model that a package ships, and inputs for it.

The model is magika's: it tells the type of a file by its first and last bytes. It takes 2,048
numbers: 1,024 bytes of the beginning and 1,024 of the end, 256 where there are fewer.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import magika

HALF, PADDING = 1024, 256


def features(content: bytes) -> list[int]:
    """Return what the model takes of a file."""
    text = content.strip()
    head, tail = text[:HALF], text[-HALF:]
    return [
        *head, *[PADDING] * (HALF - len(head)), *[PADDING] * (HALF - len(tail)), *tail,
    ]


def main() -> None:
    """Write `repository/`, `labels.json` and `files.jsonl`."""
    folder = Path(magika.__file__).parent
    file = next(folder.rglob("*.onnx"))
    version = Path("repository", "magika", "1")
    version.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(file, version / "model.onnx")
    config = json.loads((file.parent / "config.min.json").read_text())
    Path("labels.json").write_text(json.dumps(config["target_labels_space"]))
    here = Path(__file__).parent
    sources = [here / "prepare.py", here / "online-deployment.yml"]
    with open("files.jsonl", "w") as rows:
        for source in sources:
            rows.write(json.dumps({"bytes": features(source.read_bytes())}) + "\n")


if __name__ == "__main__":
    main()
