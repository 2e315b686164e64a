"""The series that ask.py asks about: whatever is odd about samples, over two hours, one every 15 s."""

import math
import struct

from write import One, histogram, snappy

STALE = struct.unpack("<d", struct.pack("<Q", 0x7ff0000000000002))[0]
NAN, INF = math.nan, math.inf
STEPS = 480


def floats():
    """Name, labels, and what tells the i-th sample; None for none."""
    mix = (INF, -INF, 1.0, NAN, 2.0)
    big = (1e16, 1.0, -1e16, 3.0)
    for k, value in {
            "const": lambda i: 7.0, "lin": lambda i: 3.0 * i - 100, "sin": lambda i: math.sin(i / 20) * 50,
            "nan": lambda i: NAN, "inf": lambda i: INF, "neginf": lambda i: -INF, "mix": lambda i: mix[i % 5],
            "negzero": lambda i: -0.0 if i % 2 else 0.0, "tiny": lambda i: 5e-324 * (i % 7 + 1),
            "huge": lambda i: 1.7e308 if i % 2 else 1.6e308, "cancel": lambda i: big[i % 4],
            "int53": lambda i: 9007199254740993.0 + 2 * i, "half": lambda i: (i % 9) / 2 - 2, "third": lambda i: i / 3,
            "time": lambda i: 1.7e9 + i * 86400 * 3.5, "old": lambda i: -86400.0 * 365 * (i % 50) + 3661.25,
            "far": lambda i: 1e12 * (i % 5 - 2), "percent": lambda i: (i % 101) / 100,
            "late": lambda i: float(i) if i > 400 else None, "early": lambda i: float(i) if i < 400 else None,
            "stale": lambda i: STALE if i % 40 == 20 else None if 20 < i % 40 < 30 else float(i),
            "flap": lambda i: STALE if i % 2 else float(i), "sparse": lambda i: float(i) if i % 19 == 3 else None,
            "once": lambda i: 42.0 if i == 470 else None, "twice": lambda i: 42.0 + i if i in (469, 470) else None,
            "gone": lambda i: STALE if i == 475 else float(i) if i < 475 else None}.items():
        yield "g", {"k": k}, value
    for k, value in {
            "int": lambda i: 5.0 * i, "reset": lambda i: 5.0 * (i % 100), "often": lambda i: float(i * 3 % 7),
            "flat": lambda i: 1000.0, "zero": lambda i: 0.0 if i < 300 else 2.0 * (i - 300), "float": lambda i: 0.1 * i,
            "nan": lambda i: NAN if i % 50 == 25 else 2.0 * i, "sparse": lambda i: 10.0 * i if i % 8 == 1 else None,
            "late": lambda i: 100.0 + i if i > 440 else None, "early": lambda i: 100.0 + i if i < 440 else None}.items():
        yield "c_total", {"k": k}, value
    for n in range(12):
        yield "m", {"i": "%02d" % n, "mod": str(n % 3)}, lambda i, n=n: float((n * 37 + i) % 41) + n / 100
    for a in "xyz":
        for b in "123":
            yield "l", {"a": a, "b": b, "side": "l"}, lambda i, a=a, b=b: float(ord(a) * int(b) + i % 5)
        if a != "z":
            yield "r", {"a": a, "e": "e" + a, "side": "r"}, lambda i, a=a: float(ord(a) + i % 3)
        for d in "pq":
            yield "d", {"a": a, "d": d}, lambda i: 1.0
    yield "r", {"a": "w", "e": "ew", "side": "r"}, lambda i: 5.0
    yield "s", {}, lambda i: 10.0 + i % 4
    for name in ("x1", "x2"):
        for a in "12":
            yield name, {"a": a}, lambda i, a=a: float(a) * i
    for v in ("1", "10", "2", "Z", "a1", "a10", "a2", "v1.10.0", "v1.2.10", "v1.2.9", "z", "é", "Ü"):
        yield "n", {"v": v, "w": str(len(v))}, lambda i, v=v: float(len(v) % 3)
    for name in ("and", "sum", "by", "offset", "bool", "start", "inf", "on", "atan2", "step", "min", "limitk"):
        yield name, {"kw": name}, lambda i: 1.0
    for v in ('say "hi"', "C:\\dir\\x", "two\nlines", "a\tb", "Grüße, 世界", "🚀", "<&>", "\u2028", "a\x01b", "`", "$1 ${2}"):
        yield "t", {"v": v}, lambda i, v=v: float(len(v))
    yield "utf.8 name", {"l.x": "v", "b": "1"}, lambda i: float(i)
    yield "utf.8 name", {"l.x": "w", "b": "2"}, lambda i: 2.0 * i
    for i in "ab":
        yield "cpu_total", {"instance": i, "job": "j"}, lambda k: 2.0 * k
        yield "target_info", {"instance": i, "job": "j", "ver": "1" + i, "cluster": "c"}, lambda k: 1.0
        yield "build_info", {"instance": i, "job": "j", "rev": "r" + i}, lambda k: 1.0
    for le, at in (("0.1", 1), ("1", 3), ("10", 4), ("+Inf", 6)):
        yield "b_bucket", {"le": le, "p": "a"}, lambda i, at=at: float(at * i)
        yield "b_bucket", {"le": le, "p": "b"}, lambda i, at=at: float(at * i * 2)
    for name, rows in {"noinf": ("0.1", "1"), "onlyinf": ("+Inf",), "badle": ("0.1", "abc", "+Inf"),
                       "dup": ("1", "1.0", "1e0", "+Inf"), "neg": ("-5", "-1", "+Inf")}.items():
        for n, le in enumerate(rows):
            yield "odd_bucket", {"le": le, "p": name}, lambda i, n=n: float((n + 1) * i)
    for n, le in enumerate(("0.1", "1", "+Inf")):
        yield "odd_bucket", {"le": le, "p": "dip"}, lambda i, n=n: (5.0, 4.0, 9.0)[n] * i
        yield "odd_bucket", {"le": le, "p": "nan"}, lambda i, n=n: (NAN, 4.0, 9.0)[n] * i


def exponential(i, schema=0, scale=1, negative=False, float_=False, hint=0, threshold=0.001, shift=0, zero=True):
    n = (i + 1) * scale
    counts = [n, 3 * n, 2 * n, n]
    spans = ((shift, 3), (2, 1))
    none = ((1, 2),), (2 * n, n)
    total = sum(counts) + (3 * n if negative else 0) + (n if zero else 0)
    deltas = [b - a for a, b in zip([0] + counts, counts)]
    negatives = None if not negative else (none[0], none[1] if float_ else (2 * n, -n))
    return dict(count=total, total=n * 2.25, schema=schema, zero=(threshold, n if zero else 0), spans=spans, deltas=deltas,
                negative=negatives, floats=counts if float_ else None, hint=hint)


def custom(i, bounds=(0.1, 0.5, 1, 5), scale=1, float_=False):
    n = (i + 1) * scale
    counts = [2 * n, 3 * n, n, n]
    deltas = [b - a for a, b in zip([0] + counts, counts)]
    return dict(count=sum(counts), total=3.5 * n, schema=-53, zero=(0, 0), spans=((0, 3), (1, 1)), deltas=deltas,
                floats=counts if float_ else None, custom=bounds)


def natives():
    for k, value in {
            "coarse": lambda i: exponential(i, -2, shift=-1), "float": lambda i: exponential(i, 2, 0.5, float_=True),
            "gauge": lambda i: exponential(i * 13 % 50, 1, float_=True, hint=3),
            "int": lambda i: exponential(i), "neg": lambda i: exponential(i, 1, negative=True),
            "nozero": lambda i: exponential(i, 3, zero=False),
            "reset": lambda i: exponential(i % 120, 3, 2), "schema": lambda i: exponential(i, 3 if i < 440 else 1),
            "sparse": lambda i: exponential(i) if i % 8 == 0 else None,
            "stale": lambda i: STALE if i % 40 == 20 else None if 20 < i % 40 < 30 else exponential(i),
            "threshold": lambda i: exponential(i, threshold=0.001 if i < 440 else 0.25),
            "empty": lambda i: dict(count=0, total=0, schema=0, zero=(0, 0), spans=(), deltas=())}.items():
        yield "h", {"k": k}, value
    for k, value in {"a": lambda i: custom(i), "change": lambda i: custom(i, (0.1, 0.5, 1, 5) if i < 440 else (0.2, 0.5, 2, 5)),
                     "float": lambda i: custom(i, scale=0.25, float_=True), "other": lambda i: custom(i, (0.2, 0.5, 2, 5)),
                     "reset": lambda i: custom(i % 100)}.items():
        yield "hc", {"k": k}, value
    for k, value in {"alternating": lambda i: float(i) if (i // 7) % 2 else exponential(i), "custom": lambda i: custom(i) if (i // 9) % 2 else exponential(i),
                     "float": lambda i: 5.0 * i, "hist": lambda i: exponential(i)}.items():
        yield "hm", {"k": k}, value


def pieces(start, steps):
    """Sorted by labels; of a mixed series a piece for each run of one kind, in the order of time."""
    everything = [({"__name__": name, **labels}, value) for name, labels, value in list(floats()) + list(natives())]
    for labels, value in sorted(everything, key=lambda one: sorted(one[0].items())):
        labels = dict(sorted(labels.items()))
        runs, kind = [], None
        for i in steps:
            one = value(i)
            if one is None:
                continue
            at = start + i * 15_000 + (i % 7 if labels.get("k") == "sparse" else 0)
            is_histogram = isinstance(one, dict)
            if kind is not is_histogram:
                runs.append(dict(labels=labels, samples=[], histograms=[]))
                kind = is_histogram
            if is_histogram:
                runs[-1]["histograms"].append(histogram(at, **one))
            else:
                runs[-1]["samples"].append((at, one))
        yield from runs


def requests(start):
    """Half an hour after the other, for a head takes nothing older than an hour; one run of a series after the
    other, for Prometheus stores the floats of a request before its histograms."""
    for first in range(0, STEPS, 120):
        rounds = []
        last, n = None, 0
        for piece in pieces(start, range(first, first + 120)):
            n = n + 1 if piece["labels"] == last else 0
            last = piece["labels"]
            if n == len(rounds):
                rounds.append([])
            rounds[n].append(piece)
        for some in rounds:
            yield snappy(One.request(*some))
