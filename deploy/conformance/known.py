"""What the checks that compare two servers have in common: how they are called, and what they know may differ."""

import argparse
import os
import re
import sys


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


class Verdict:
    """What differs, held against the patterns of a file beside this one."""

    def __init__(self, name, chosen):
        self.name, self.chosen = name, chosen
        self.patterns = [re.compile(line) for line, _ in reasons(name)]
        self.met, self.new, self.known = set(), 0, 0

    def tell(self, key, ours, theirs):
        """Takes a difference: it is told when it is new, and with --show."""
        matching = [pattern for pattern in self.patterns if pattern.fullmatch(key)]
        self.met.update(matching)
        self.new, self.known = self.new + (not matching), self.known + bool(matching)
        if self.chosen.show or not matching:
            verdict = "known" if matching else "DIFFERS"
            print("%s %s\n    ours   %s\n    theirs %s" % (verdict, key, ours, theirs))

    def end(self):
        """Ends the program: with 1 where something is new, or a pattern is not needed any more."""
        gone = [] if self.chosen.only else [one.pattern for one in self.patterns if one not in self.met]
        for pattern in gone:
            print("nothing differs like that any more, take it out of %s: %s" % (self.name, pattern))
        counts = (self.known, self.new, len(gone))
        print("%d differ and are known, %d are new, %d reasons are not needed" % counts)
        sys.exit(1 if self.new or gone else 0)
