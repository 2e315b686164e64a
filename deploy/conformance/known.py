"""What the checks that compare two servers have in common: how they are called, and what they know may differ."""

import argparse
import os


def options(what):
    """Of a check whose --only takes a part of `what`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("quorate")
    parser.add_argument("prometheus")
    parser.add_argument("--only", default="", metavar="PART_OF_A_" + what)
    parser.add_argument("--show", action="store_true")
    return parser.parse_args()


def reasons(name):
    """The lines of a file beside this one, in their order, each with the comment it stands below."""
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), name)
    found, reason = [], ""
    with open(path, encoding="utf-8") as file:
        for line in file.read().splitlines():
            if line.startswith("# "):
                reason = line[2:]
            elif line:
                found.append((line, reason))
    return found
