"""Holds what the conformance tools found against the failures that are known.

    verdict.py RESULTS KNOWN [--write REASON | --add REASON]

RESULTS has one JSON file a tool, or NAME.failed where a tool did not come to its end. KNOWN has a
line for each failure, "tool<TAB>check", under headings "# reason"; the same line twice means that
two checks read alike. Exits with 1 on a failure that is not known. With --write KNOWN becomes the
failures of these results, for the tools that ran; with --add those that are new are added, for
what fails in one run and not in the next.
"""
import collections
import json
import pathlib
import re
import sys

# What changes from run to run: times, as numbers and as text, and ports.
CHANGING = re.compile(r"\b1[5-9]\d{8}(\.\d+)?\b|127\.0\.0\.1(:|%3A)\d+|\b20\d\d-\d\d-\d\dT[\d:.]+(Z|[+-]\d\d:\d\d)?")


# How much is shown of why a check failed, in characters.
SHOWN = 2400


def failures_of(path):
    """The failed checks of one tool's JSON as (check, why), and what it counted."""
    result = json.loads(path.read_text())
    if "results" in result:
        failed = [r for r in result["results"] if r["outcome"] == "fail"]
        told = [(f"{r['file']}:{r['line']} {r['expr']}", r.get("why", "")) for r in failed]
        return told, f"{result['passed']} of {result['counted']}"
    told = [
        (f"[{f['category']}] {f.get('check', f.get('query'))}", json.dumps(f.get("diffs")))
        for f in result["failures"]
    ]
    total = result["totals"]
    return told, f"{total['ok']} of {total.get('queries', total.get('checks'))}"


def read_results(folder):
    """Failures as (tool, check), with multiplicity; why each failed; and the tools that ran."""
    found, reasons, ran = collections.Counter(), collections.defaultdict(list), {}
    for path in sorted(folder.glob("*.json")):
        failed, ran[path.stem] = failures_of(path)
        for check, why in failed:
            failure = (path.stem, one_line(check))
            found[failure] += 1
            reasons[failure].append(why)
    for path in sorted(folder.glob("*.failed")):
        ran[path.stem] = path.read_text().strip()
        found[(path.stem, "did not come to its end")] += 1
    return found, reasons, ran


def one_line(text):
    return CHANGING.sub("…", text).replace("\t", "\\t").replace("\n", "\\n")


def read_known(path):
    """(reason, (tool, check)) in the order of the file."""
    known, reason = [], ""
    for line in path.read_text().splitlines() if path.exists() else []:
        if line.startswith("# "):
            reason = line[2:]
        elif line:
            tool, check = line.split("\t", 1)
            known.append((reason, (tool, check)))
    return known


def written(known, found, keeps, reason):
    """What KNOWN should say: what is still there or is to be kept, then what is new."""
    left, groups = found.copy(), {}
    for why, failure in known:
        if keeps(failure) or left[failure] > 0:
            left[failure] -= 1
            groups.setdefault(why, []).append(failure)
    for failure in sorted((+left).elements()):
        groups.setdefault(reason, []).append(failure)
    parts = ["\n".join([f"# {why}", *("\t".join(f) for f in sorted(failures))]) for why, failures in groups.items()]
    return "\n\n".join(parts) + "\n"


def main():
    results, known_path = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    found, reasons, ran = read_results(results)
    known = read_known(known_path)
    expected = collections.Counter(failure for _, failure in known if failure[0] in ran)
    for tool, told in ran.items():
        print(f"{tool}: {told}")
    if len(sys.argv) > 3:
        keeps_all = {"--write": False, "--add": True}[sys.argv[3]]
        text = written(known, found, lambda failure: keeps_all or failure[0] not in ran, sys.argv[4])
        known_path.write_text(text)
        print(f"{sum(found.values())} failures written")
        return 0
    new, gone = found - expected, expected - found
    for tool, check in sorted(gone.elements()):
        print(f"no longer fails, take it out of known.txt: {tool}: {check}")
    for (tool, check), count in sorted(new.items()):
        for why in (reasons[(tool, check)] or [""])[-count:]:
            print(f"NEW FAILURE {tool}: {check}")
            print("  " + why[:SHOWN].replace("\n", "\n  "))
    print(f"{sum(found.values())} fail, {sum(new.values())} of them new; {sum(gone.values())} known ones do not")
    return 1 if new or not ran else 0


if __name__ == "__main__":
    sys.exit(main())
