"""`make chaos TRIALS=100 FROM=0`: seeded trials of whole jobs under faults, checked byte by byte.

Exits with 0 only if every output was exact. A trial that was not prints its seed and the log of its
faults, and its folder stays.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from tests import radosgw
from tests.chaos.cluster import private_cluster
from tests.chaos.far import far_storage
from tests.chaos.results import Part, commit, record
from tests.chaos.trial import Trial, Verdict
from tests.chaos.workload import Plan


def main() -> int:
    """Run the trials; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--from", type=int, default=0, dest="first", help="the first seed")
    parser.add_argument("--no-record", action="store_true", help="leave RESULTS.md as it is")
    options = parser.parse_args()
    plans = [Plan.draw(options.first + number) for number in range(options.trials)]
    is_far = any(plan.storage == "s3" for plan in plans)
    missing = radosgw.missing_program() if is_far else None
    if missing:
        parser.exit(2, f"{missing} is not installed; trials on S3 need it (see .ci/run)\n")
    verdicts: list[Verdict] = []
    try:
        with ExitStack() as stack:
            far = stack.enter_context(far_storage()) if is_far else None
            cluster = stack.enter_context(private_cluster(far.environment if far else {}))
            for plan in plans:
                folder = Path(tempfile.mkdtemp(prefix=f"chaos-trial-{plan.seed}-"))
                verdict = Trial(cluster, plan, folder, far).run()
                verdicts.append(verdict)
                _tell(verdict, folder)
                if not verdict.wrong:
                    shutil.rmtree(folder)
    finally:
        if verdicts and not options.no_record:
            record(Part.of(commit(), verdicts))
    exact = sum(not verdict.wrong for verdict in verdicts)
    print(f"{exact} of {len(verdicts)} outputs exact")
    return 0 if exact == len(verdicts) else 1


def _tell(verdict: Verdict, folder: Path) -> None:
    struck = ", ".join(f"{count} {kind}" for kind, count in verdict.kills.items()) or "no fault"
    if verdict.far_faults:
        struck += f", {verdict.far_faults} requests"
    how = "exact" if not verdict.wrong else "WRONG"
    print(
        f"seed {verdict.plan.seed}: {how}; {verdict.seconds:.1f} s; {struck}; "
        f"{verdict.redone} scored twice; {verdict.plan.describe()}",
        flush=True,
    )
    if verdict.wrong:
        print("\n".join([*verdict.wrong, *verdict.log, f"see {folder}"]), flush=True)


if __name__ == "__main__":
    sys.exit(main())
