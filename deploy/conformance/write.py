#!/usr/bin/env python3
"""Remote write 1.0 and 2.0: the same good and bad requests to quorate and to a real Prometheus; codes, texts, the
headers that count what is written, what is stored afterwards, and what remote read gives of histograms, are compared.

  deploy/conformance/write.py QUORATE PROMETHEUS [--only PART_OF_A_NAME] [--show]

A difference that write_known.txt has with its reason is told and no failure; one that is no longer there is.
--show tells every answer. Exits with 0, with 1 on a difference that is not known.
"""

import json
import os
import struct
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request

import known
from server import Server

NOW = int(time.time()) * 1000 - 60_000
PATH = "/api/v1/write"
CONFIGURATIONS = {"in order": "0s", "out of order": "30m"}
COUNTS = ["X-Prometheus-Remote-Write-%s-Written" % what for what in ("Samples", "Histograms", "Exemplars")]
V1 = {"Content-Type": "application/x-protobuf", "Content-Encoding": "snappy",
      "X-Prometheus-Remote-Write-Version": "0.1.0"}
V2 = {"Content-Type": "application/x-protobuf;proto=io.prometheus.write.v2.Request", "Content-Encoding": "snappy",
      "X-Prometheus-Remote-Write-Version": "2.0.0"}


# ---- protobuf and snappy, by hand, so that each may be wrong ----

def varint(n):
    n &= (1 << 64) - 1
    out = bytearray()
    while n > 127:
        out.append(n & 127 | 128)
        n >>= 7
    out.append(n)
    return bytes(out)


def number(field, n):
    return varint(field << 3) + varint(n)


def zigzag(field, n):
    return number(field, n << 1 ^ n >> 63)


def double(field, value):
    return varint(field << 3 | 1) + struct.pack("<d", value)


def block(field, payload):
    if isinstance(payload, str):
        payload = payload.encode()
    return varint(field << 3 | 2) + varint(len(payload)) + payload


def snappy(body):
    """One literal after the other."""
    out = bytearray(varint(len(body)))
    for at in range(0, len(body), 60):
        piece = body[at:at + 60]
        out.append((len(piece) - 1) << 2)
        out += piece
    return bytes(out)


def pairs(labels):
    return labels.items() if isinstance(labels, dict) else labels


def unpacked(packed):
    """What snappy's block has."""
    def length(at):
        value = shift = 0
        while True:
            value |= (packed[at] & 127) << shift
            at, shift = at + 1, shift + 7
            if packed[at - 1] < 128:
                return value, at
    out, (_, at) = bytearray(), length(0)
    while at < len(packed):
        tag, kind = packed[at], packed[at] & 3
        at += 1
        if kind == 0:
            size, more = (tag >> 2) + 1, max(0, (tag >> 2) - 59)
            if more:
                size = int.from_bytes(packed[at:at + more], "little") + 1
            out += packed[at + more:at + more + size]
            at += more + size
            continue
        size, offset, more = {1: ((tag >> 2 & 7) + 4, tag >> 5 << 8, 1), 2: ((tag >> 2) + 1, 0, 2), 3: ((tag >> 2) + 1, 0, 4)}[kind]
        offset += int.from_bytes(packed[at:at + more], "little")
        at += more
        for _ in range(size):
            out.append(out[-offset])
    return bytes(out)


class One:
    """Requests of version 1.0."""
    headers = V1

    @staticmethod
    def series(labels, samples=(), exemplars=(), histograms=(), **_):
        out = b"".join(block(1, block(1, n) + block(2, v)) for n, v in pairs(labels))
        out += b"".join(block(2, double(1, value) + number(2, at)) for at, value in samples)
        for at, value, on in exemplars:
            on = b"".join(block(1, block(1, n) + block(2, v)) for n, v in pairs(on))
            out += block(3, on + double(2, value) + number(3, at))
        return out + b"".join(block(4, one) for one in histograms)

    @classmethod
    def request(cls, *all_series):
        return b"".join(block(1, cls.series(**one)) for one in all_series)


class Two:
    """Requests of version 2.0."""
    headers = V2

    @classmethod
    def request(cls, *all_series):
        symbols = [""]

        def refs(labels):
            out = b""
            for text in (text for pair in pairs(labels) for text in pair):
                if text not in symbols:
                    symbols.append(text)
                out += varint(symbols.index(text))
            return out
        body = b""
        for one in all_series:
            series = block(1, one.get("refs", refs(one["labels"])))
            series += b"".join(block(2, double(1, value) + number(2, at)) for at, value in one.get("samples", ()))
            series += b"".join(block(3, histogram) for histogram in one.get("histograms", ()))
            for at, value, on in one.get("exemplars", ()):
                series += block(4, block(1, refs(on)) + double(2, value) + number(3, at))
            if "kind" in one:
                series += block(5, number(1, one["kind"]) + b"".join(
                    number(field, int.from_bytes(refs([(text,)]), "little")) for field, text in ((3, "help"), (4, "unit"))))
            if "created" in one:
                series += number(6, one["created"])
            body += block(5, series)
        return b"".join(block(4, symbol) for symbol in symbols) + body


def histogram(at, count=3, total=1.5, schema=1, zero=(0.001, 1), spans=((0, 2),), deltas=(1, 0), negative=None,
              floats=None, custom=None, hint=0, extra=b""):
    """A native histogram; integers unless `floats` has the buckets' counts."""
    out = double(2, count) if floats is not None else number(1, count)
    out += double(3, total) + zigzag(4, schema) + double(5, zero[0])
    out += double(7, zero[1]) if floats is not None else number(6, zero[1])
    for field, (some, counts) in ((8, negative or ((), ())), (11, (spans, floats if floats is not None else deltas))):
        out += b"".join(block(field, zigzag(1, offset) + number(2, length)) for offset, length in some)
        if floats is not None:
            out += block(field + 2, b"".join(struct.pack("<d", count) for count in counts))
        else:
            out += block(field + 1, b"".join(varint(delta << 1 ^ delta >> 63) for delta in counts))
    out += number(14, hint) + number(15, at)
    if custom is not None:
        out += block(16, b"".join(struct.pack("<d", bound) for bound in custom))
    return out + extra


# ---- what is sent ----

def good(name, **labels):
    return {"labels": {"__name__": name, **labels}, "samples": [(NOW, 1)]}


def bodies():
    """Name, and the series of the requests that are sent one after the other."""
    def one(name, **fields):
        return name, [[{**good("m"), **fields}]]

    def labelled(name, labels):
        return name, [[{"labels": labels, "samples": [(NOW, 1)]}, good("beside")]]
    yield "empty", [[]]
    yield one("a sample")
    yield one("no sample", samples=[])
    yield labelled("no labels", [])
    yield labelled("no name", {"job": "a"})
    yield labelled("an empty name", {"__name__": "", "job": "a"})
    yield labelled("a name of UTF-8", {"__name__": "µ.é", "a.b": "c"})
    yield labelled("a name that is no UTF-8", [("__name__", b"m\xff")])
    yield labelled("a label's name that is no UTF-8", [("__name__", "m"), (b"a\xff", "b")])
    yield labelled("a value that is no UTF-8", [("__name__", "m"), ("a", b"\xff")])
    yield labelled("an empty label's name", [("__name__", "m"), ("", "b")])
    yield labelled("an empty value", [("__name__", "m"), ("a", "")])
    yield labelled("a digit first", [("1", "a"), ("__name__", "1m")])
    yield labelled("unsorted labels", [("b", "1"), ("a", "2"), ("__name__", "m")])
    yield labelled("a label twice", [("__name__", "m"), ("a", "1"), ("a", "1")])
    yield labelled("a label with two values", [("__name__", "m"), ("a", "1"), ("a", "2")])
    yield labelled("a long value", {"__name__": "m", "a": "x" * 10_000})
    yield one("values", samples=[(NOW, float("inf")), (NOW + 1, float("nan")), (NOW + 2, -0.0), (NOW + 3, 5e-324)])
    yield one("stale", samples=[(NOW, 1), (NOW + 1, struct.unpack("<d", struct.pack("<Q", 0x7ff0000000000002))[0])])
    yield one("unordered samples", samples=[(NOW, 1), (NOW - 1000, 2)])
    yield one("the same twice", samples=[(NOW, 1), (NOW, 1)])
    yield one("two values", samples=[(NOW, 1), (NOW, 2)])
    yield "the same again", [[good("m")], [good("m")]]
    yield "another value", [[good("m")], [{**good("m"), "samples": [(NOW, 2)]}, good("beside")]]
    yield "before", [[good("m")], [{**good("m"), "samples": [(NOW - 1000, 2)]}, good("beside")]]
    yield "long before", [[good("m")], [{**good("m"), "samples": [(NOW - 7_200_000, 2)]}, good("beside")]]
    yield one("years ago", samples=[(1, 1)])
    yield one("at no time", samples=[(0, 1)])
    yield one("an hour ahead", samples=[(NOW + 3_600_000 + 120_000, 1)])
    yield one("good and old", samples=[(1, 1), (NOW, 1)])
    yield "mixed", [[good("m"), {"labels": {"job": "a"}, "samples": [(NOW, 1)]}, good("last")]]
    yield "two series alike", [[good("m"), good("m")]]
    # Exemplars.
    trace = {"trace_id": "a"}
    yield one("an exemplar", exemplars=[(NOW, 1, trace)])
    yield one("an exemplar alone", samples=[], exemplars=[(NOW, 1, trace)])
    yield one("an exemplar twice", exemplars=[(NOW, 1, trace), (NOW, 1, trace)])
    yield one("unordered exemplars", exemplars=[(NOW, 1, trace), (NOW - 1000, 2, trace)])
    yield one("an exemplar's long labels", exemplars=[(NOW, 1, {"trace_id": "x" * 200})])
    yield one("an exemplar's label twice", exemplars=[(NOW, 1, [("a", "1"), ("a", "2")])])
    yield one("an exemplar without labels", exemplars=[(NOW, 1, {})])
    # Histograms.
    def native(name, *all_of_them):
        return name, [[{**good("h"), "samples": [], "histograms": list(all_of_them)}, good("beside")]]
    yield native("integers", histogram(NOW))
    yield native("floats", histogram(NOW, count=3.5, floats=(1, 1.5), zero=(0.001, 1)))
    yield native("negative buckets", histogram(NOW, count=5, negative=(((1, 1),), (2,))))
    yield native("custom buckets", histogram(NOW, count=2, schema=-53, zero=(0, 0), custom=(1, 2)))
    yield native("a gauge", histogram(NOW, hint=3))
    yield native("an unknown hint", histogram(NOW, hint=9))
    yield native("too few in buckets", histogram(NOW, count=9))
    yield native("too many in buckets", histogram(NOW, count=2))
    yield native("NaN and too few", histogram(NOW, count=9, total=float("nan")))
    yield native("NaN and too many", histogram(NOW, count=2, total=float("nan")))
    yield native("a negative bucket", histogram(NOW, count=2, deltas=(1, -2)))
    yield native("a negative float", histogram(NOW, count=1, floats=(1, -1), zero=(0.001, 1)))
    yield native("a negative count", histogram(NOW, count=-1, floats=(), spans=(), zero=(0, 0)))
    yield native("a negative zero bucket", histogram(NOW, count=1, floats=(1, 1), zero=(0.001, -1)))
    yield native("spans beyond buckets", histogram(NOW, count=2, spans=((0, 3),)))
    yield native("buckets beyond spans", histogram(NOW, count=3, spans=((0, 1),)))
    yield native("a negative offset", histogram(NOW, spans=((0, 1), (-1, 1))))
    yield native("schema 9", histogram(NOW, schema=9))
    yield native("schema -5", histogram(NOW, schema=-5))
    yield native("schema 60", histogram(NOW, schema=60))
    yield native("schema 127", histogram(NOW, schema=127))
    yield native("a negative zero threshold", histogram(NOW, zero=(-1, 1)))
    yield native("custom: unsorted", histogram(NOW, count=2, schema=-53, zero=(0, 0), custom=(2, 1)))
    yield native("custom: two alike", histogram(NOW, count=2, schema=-53, zero=(0, 0), custom=(1, 1)))
    yield native("custom: infinite", histogram(NOW, count=2, schema=-53, zero=(0, 0), custom=(1, float("inf"))))
    yield native("custom: no number", histogram(NOW, count=2, schema=-53, zero=(0, 0), custom=(1, float("nan"))))
    yield native("custom: too few bounds", histogram(NOW, count=2, schema=-53, zero=(0, 0), custom=()))
    yield native("custom: a zero bucket", histogram(NOW, schema=-53, custom=(1, 2)))
    yield native("custom: a zero threshold", histogram(NOW, count=2, schema=-53, zero=(1, 0), custom=(1, 2)))
    yield native("custom: negative buckets", histogram(NOW, count=3, schema=-53, zero=(0, 0), custom=(1, 2), negative=(((0, 1),), (1,))))
    yield native("exponential with bounds", histogram(NOW, custom=(1, 2)))
    yield native("no buckets", histogram(NOW, count=0, spans=(), deltas=(), zero=(0, 0)))
    yield native("a histogram twice", histogram(NOW), histogram(NOW))
    yield native("two histograms", histogram(NOW), histogram(NOW, total=7))
    yield native("unordered histograms", histogram(NOW), histogram(NOW - 1000))
    yield native("an old histogram", histogram(1))
    yield native("good and bad", histogram(NOW), histogram(NOW + 1, count=9), histogram(NOW + 2))
    # Integers that no float tells.
    large, most = (1 << 53) + 1, (1 << 64) - 1
    yield native("large integers", histogram(NOW, count=2 * large + 1, deltas=(large, 0)))
    yield native("the largest integers", *(histogram(
        NOW + n, count=most, zero=(0.001, 2), spans=((-2, 2),), deltas=((1 << 63) - 2, 1 - n), negative=(((1, 1),), (n,)))
        for n in (0, 1)))
    yield native("large integers, one too many", histogram(NOW, count=2 * large, deltas=(large, 0)))
    yield native("large integers that fall", *(histogram(NOW + n, count=2 * large + 5 - 2 * n, zero=(0.001, 1 + n % 2),
                                                         deltas=(large + 2 - n, -(n % 2))) for n in range(3)))
    yield native("a large gauge", histogram(NOW, count=2 * large + 1, deltas=(large, 0), hint=3))
    yield native("large integers of custom buckets",
                 histogram(NOW, count=2 * large, schema=-53, zero=(0, 0), custom=(1, 2), deltas=(large, 0)))
    yield native("large integers twice", *(histogram(NOW, count=2 * large + 1, deltas=(large, 0)) for _ in (0, 1)))
    yield native("large integers, another",
                 *(histogram(NOW, count=2 * large + n, zero=(0.001, n), deltas=(large, 0)) for n in (1, 2)))
    yield "a float and a histogram", [[{**good("h"), "histograms": [histogram(NOW)]}]]
    yield "a histogram behind a float", [[{**good("h"), "histograms": [histogram(NOW + 1)]}]]


def only_two():
    """Of version 2.0 alone."""
    yield "metadata", [[{**good("m_total"), "kind": 1}]]
    yield "an unknown type", [[{**good("m"), "kind": 77}]]
    yield "created", [[{**good("m_total"), "created": NOW - 10_000}]]
    yield "created later", [[{**good("m_total"), "created": NOW + 10_000}]]
    yield "an odd number of references", [[{**good("m"), "refs": b"\1"}, good("beside")]]
    yield "references out of bounds", [[{**good("m"), "refs": b"\1\x63"}, good("beside")]]


def marked(case, all_series):
    """The labels tell the case, sorted where they were; what has no labels stays so."""
    for one in all_series:
        labels = list(pairs(one["labels"]))
        if labels and "case" not in dict(labels):
            ordered = labels == sorted(labels, key=lambda pair: as_bytes(pair[0]))
            labels.append(("case", case))
            if ordered:
                labels.sort(key=lambda pair: as_bytes(pair[0]))
        yield {**one, "labels": labels}


def as_bytes(text):
    return text.encode() if isinstance(text, str) else text


def heads():
    """Name, headers and body: whatever is wrong with a request before it is read."""
    body = snappy(One.request(good("head")))
    two = snappy(Two.request(good("head2")))
    yield "no headers", {}, body
    for kind in ("text/plain", "application/json", "application/x-protobuf;bad", "application/x-protobuf;proto=foo",
                 "application/x-protobuf; proto=prometheus.WriteRequest", "application/x-protobuf;charset=utf-8",
                 "APPLICATION/x-protobuf", "application/x-protobuf;proto=io.prometheus.write.v2.Request;a=b"):
        yield "type " + kind, {**V1, "Content-Type": kind}, two if "v2" in kind else body
    for encoding in ("gzip", "zstd", "SNAPPY", "identity", "snappy, gzip"):
        yield "encoding " + encoding, {**V1, "Content-Encoding": encoding}, body
        yield "2.0, encoding " + encoding, {**V2, "Content-Encoding": encoding}, two
    for version in ("9.9.9", "x"):
        yield "version " + version, {**V1, "X-Prometheus-Remote-Write-Version": version}, body
    for name, head in (("1.0", V1), ("2.0", V2)):
        yield name + ", nothing", head, b""
        yield name + ", not snappy", head, b"\x02xxxxxx"
        yield name + ", not packed", head, One.request(good("head"))
        yield name + ", a length too large", head, varint(1 << 31) + b"\0a"
        yield name + ", a length too small", head, varint(2) + snappy(b"abcdefgh")[1:]
        yield name + ", no protobuf", head, snappy(b"\x0a\x50abc")
        yield name + ", a wire type that is none", head, snappy(b"\x0f")
        yield name + ", field 0", head, snappy(b"\x02\x00")
        yield name + ", unknown fields", head, snappy(block(99, "x") + number(98, 7) + double(97, 1))
    yield "1.0 as 2.0", V2, body
    yield "2.0 as 1.0", V1, two
    yield "1.0, metadata alone", V1, snappy(block(3, number(1, 1) + block(2, "m_total") + block(4, "help")))


class Receiver(Server):
    """One that takes remote write, with a window for what comes out of order."""

    def __init__(self, binary, folder, window, flags):
        config = "storage: {tsdb: {out_of_order_time_window: %s}}\n" % window
        features = "--enable-feature=native-histograms,exemplar-storage"
        super().__init__(binary, folder, config, ["--web.enable-remote-write-receiver", features] + flags)

    def send(self, headers, body):
        """Code, text, and the headers that count."""
        # Python would add a type of its own.
        sent = urllib.request.Request(self.url + PATH, body, {"Content-Type": "", **headers})
        try:
            answer = urllib.request.urlopen(sent, timeout=20)
        except urllib.error.HTTPError as error:
            answer = error
        except OSError as error:
            return "no answer", type(error).__name__
        found = {name.rsplit("-", 2)[1]: answer.headers[name] for name in COUNTS if answer.headers[name] is not None}
        return answer.status, answer.read().decode(errors="replace").strip(), found

    def ask(self, path, **params):
        url = "%s/api/v1/%s?%s" % (self.url, path, urllib.parse.urlencode(params))
        return json.load(urllib.request.urlopen(url, timeout=20))["data"]

    def read(self, case, chunks):
        """What remote read answers of the histograms, plain samples or chunks."""
        def matcher(kind, name, value):
            return block(3, number(1, kind) + block(2, name) + block(3, value))
        query = number(1, NOW - 8_000_000) + number(2, NOW + 8_000_000) + matcher(0, "__name__", "h") + matcher(0, "case", case)
        asked = urllib.request.Request(self.url + "/api/v1/read", snappy(block(1, query) + (number(2, 1) if chunks else b"")), {
            "Content-Type": "application/x-protobuf", "Content-Encoding": "snappy", "X-Prometheus-Remote-Read-Version": "0.1.0"})
        try:
            answer = urllib.request.urlopen(asked, timeout=20).read()
        except OSError as error:
            return "no answer: %s" % type(error).__name__
        return answer.hex() if chunks else unpacked(answer).hex()

    def stored(self, case):
        """Every series of a case with its samples, and every exemplar."""
        start, end = (NOW - 8_000_000) / 1000, (NOW + 8_000_000) / 1000
        selector = "{__name__=~\".+\",case=%s}" % json.dumps(case)
        try:
            vector = self.ask("query", query=selector + "[16000s]", time=end)["result"]
            exemplars = self.ask("query_exemplars", query=selector, start=start, end=end)
        except OSError as error:
            return "no answer: %s" % type(error).__name__
        found = [(sorted(one.pop("metric").items()), sorted(one.items())) for one in vector]
        found += [(sorted(one["seriesLabels"].items()), one["exemplars"]) for one in exemplars]
        return sorted(found, key=str)


def cases():
    """Name, mark, headers and the bodies that are sent one after the other."""
    for name, headers, body in heads():
        yield name, None, headers, [body]
    for version, name, some in ((One, "1.0", [bodies()]), (Two, "2.0", [bodies(), only_two()])):
        for what, requests in (case for part in some for case in part):
            case = "%s %s" % (name, what)
            yield case, case, version.headers, [
                snappy(version.request(*marked(case, all_series))) for all_series in requests]


OWN = ["--push.listen-address=", "--cluster.listen-address=127.0.0.1:0"]


def differences(quorate, prometheus, folder, only, show):
    """Name of a case with its configuration, what differs, ours and theirs."""
    for n, (configuration, window) in enumerate(CONFIGURATIONS.items()):
        ours = Receiver(quorate, os.path.join(folder, "q%d" % n), window, OWN)
        try:
            theirs = Receiver(prometheus, os.path.join(folder, "p%d" % n), window, [])
            try:
                chosen = [case for case in cases() if only in case[0]]
                for name, _, headers, some in chosen:
                    for place, body in enumerate(some):
                        a, b = ours.send(headers, body), theirs.send(headers, body)
                        if show:
                            print("%s, %s, request %d\n    ours   %s\n    theirs %s" % (configuration, name, place + 1, a, b))
                        for what, left, right in zip(("code", "text", "counts"), a, b):
                            # Ours may say more than that.
                            if left != right and not (what == "text" and right and right in left):
                                yield configuration, name, what, left, right
                for mark in (mark for _, mark, _, _ in chosen if mark):
                    a, b = ours.stored(mark), theirs.stored(mark)
                    if a != b:
                        yield configuration, mark, "stored", a, b
                        continue
                    for what, chunks in (("samples", False), ("chunks", True)):
                        a, b = ours.read(mark, chunks), theirs.read(mark, chunks)
                        if a != b:
                            yield configuration, mark, what, a, b
                print("%-14s %d requests' cases" % (configuration, len(chosen)))
            finally:
                theirs.stop()
        finally:
            ours.stop()


def may_differ():
    """(case, what) by its reason. A case without its configuration stands for both."""
    return {tuple(line.split("\t")): reason for line, reason in known.reasons("write_known.txt")}


def main():
    chosen = known.options("NAME")
    allowed, met, failed = may_differ(), set(), 0
    with tempfile.TemporaryDirectory() as folder:
        found = differences(chosen.quorate, chosen.prometheus, folder, chosen.only, chosen.show)
        for configuration, name, what, ours, theirs in found:
            keys = [(name, what), (name, what, configuration)]
            meant = [key for key in keys if key in allowed]
            met.update(meant)
            if meant:
                continue
            failed += 1
            print("DIFFERS %s\t%s\t%s\n    ours   %s\n    theirs %s" % (name, what, configuration, ours, theirs))
    gone = [] if chosen.only else sorted(allowed.keys() - met)
    for key in gone:
        print("no longer differs, take it out of write_known.txt: %s" % "\t".join(key))
    print("%d differ and are known, %d are new, %d known ones do not" % (len(met), failed, len(gone)))
    sys.exit(1 if failed or gone else 0)


if __name__ == "__main__":
    main()
