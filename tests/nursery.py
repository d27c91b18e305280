"""Children that ingest and may be killed: forked from a process that has imported everything and computed nothing.

Reads one JSON object per line: ``folder``, ``paths``, ``options``, and ``step``, the number of the step of
a commit at which the child kills itself (0: never). Answers with the child's pid, then with how it ended.
"""

from pathlib import Path

import pandera.polars  # noqa: F401  (the slowest of the imports, else made by the first child's refinery)

from children import killing, serve
from lakes import Place


def work(job):
    """Ingest; how many files failed."""
    place, paths = Place(Path(job["folder"])), map(Path, job["paths"])
    outcomes = place.ingest(*paths, on_step=killing(job["step"]), **job["options"])
    return sum(o.status == "failed" for o in outcomes)


if __name__ == "__main__":
    serve(work)
