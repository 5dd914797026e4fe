"""What the samples become: ``python -m tests.unit.datapipeline.golden`` writes it to ``expected/``, where a test compares it."""

from __future__ import annotations

import shutil
from pathlib import Path

from stream.cli.importing import _first_error
from stream.datapipeline.report import REPORT, markdown
from stream.datapipeline.translate import Imported, import_definition

HERE = Path(__file__).parent
SAMPLES = sorted((HERE / "samples").glob("*.json"))
EXPECTED = HERE / "expected"


def imported(sample: Path) -> Imported:
    return import_definition(sample.read_bytes(), sample.name, (), "", _first_error)


def files(sample: Path) -> dict[str, str]:
    done = imported(sample)
    return {**done.files, REPORT: markdown(done)}


def main() -> None:
    shutil.rmtree(EXPECTED, ignore_errors=True)
    for sample in SAMPLES:
        for name, text in files(sample).items():
            path = EXPECTED / sample.stem / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
