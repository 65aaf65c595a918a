#!/usr/bin/env python3
"""Whether the tests and the chaos run together came to every rare place of the program: reached.py LOG…

A place says `reached!("NAME")` (src/reached.rs). Their list is what the source has, so a new one can't be forgotten. Prints how often
each was reached, and exits with 1 when one was not."""

import collections
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
PLACE = re.compile(r'reached!\(\s*"([^"]+)"')
SEEN = re.compile(r"\breached: (.+)")


def main():
    sources = [*(ROOT / "src").rglob("*.rs"), *(ROOT / "queues" / "src").rglob("*.rs")]
    places = {name: path.relative_to(ROOT) for path in sources for name in PLACE.findall(path.read_text(encoding="utf-8"))}
    seen = collections.Counter()
    for log in sys.argv[1:]:
        with open(log, encoding="utf-8", errors="replace") as file:
            for line in file:
                if found := SEEN.search(line):
                    seen[found[1].strip()] += 1
    for name, path in sorted(places.items()):
        print(f"{seen[name]:8}  {name}  ({path})")
    missing = [name for name in places if not seen[name]]
    if missing or not places:
        sys.exit(f"not reached, so nothing shows that it works: {', '.join(missing) or 'there is no place at all'}")


if __name__ == "__main__":
    main()
