"""`python -m tests.golden --write` writes the files anew; `--show NAME` prints a problem's report.

To see why a report's digest changed, run `--show` at both commits and compare.
"""

from __future__ import annotations

import argparse
import sys

from tests.golden import digests, public_api


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m tests.golden", description=__doc__)
    parser.add_argument("--write", action="store_true", help="write both files anew")
    parser.add_argument("--show", metavar="NAME", choices=digests.names(), help="print a report")
    given = parser.parse_args()
    if given.show:
        report = digests.report_of(given.show)
        sys.stdout.write(digests.report_text(report) + "\n")
    elif given.write:
        public_api.FILE.write_text(public_api.document(), encoding="utf-8")
        digests.FILE.write_text(digests.document() + "\n", encoding="utf-8")
    else:
        parser.error("nothing to do: --write or --show NAME")


if __name__ == "__main__":
    main()
