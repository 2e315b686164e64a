#!/usr/bin/env python3
"""Questions by HTTP to a quorate and to a real Prometheus with the same samples: answers are compared by their text.

  deploy/conformance/ask.py QUORATE PROMETHEUS [--only PART_OF_A_QUESTION] [--show]

ask.txt has expressions; each is asked as an instant and a range query, which samples those take is compared, and
each is laid out and taken apart, and some are broken first. The rest of the API is asked by the table below: odd times, durations, limits, selectors, paths,
methods, forms and headers. The
order of an instant vector counts where something was sorted. Differences that ask_known.txt has with their reason
are told and no failure; a reason that no question needs any more is one. --show tells the known ones too.
Exits with 0, with 1 on a difference that is not known.
"""

import concurrent.futures
import http.client
import itertools
import json
import os
import random
import re
import tempfile
import threading
import time
import urllib.parse
import urllib.request

import known
from ask_series import STEPS, requests
from server import Server
from write import V1

HERE = os.path.dirname(os.path.abspath(__file__))
END = int(time.time()) // 3600 * 3600
API = "/api/v1/"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
FEATURES = "native-histograms,promql-experimental-functions,promql-duration-expr,promql-per-step-stats"
FLAGS = ["--web.enable-remote-write-receiver", "--web.enable-admin-api", "--enable-feature=" + FEATURES]
OWN = ["--push.listen-address=", "--cluster.listen-address=127.0.0.1:0"]
CONFIG = "global: {external_labels: {dc: eu}}\n"
# Headers that are compared, where what they tell does not hang on the server's own.
HEADERS = ["content-type", "allow", "vary", "content-encoding", "location", "access-control-allow-origin",
           "access-control-allow-methods", "access-control-allow-headers", "access-control-expose-headers"]
# What adds samples up in the order in which it meets the series: the last digits may differ.
ADDS_UP = re.compile(r"\b(sum|avg|stddev|stdvar)\b *(by|without|\()")


# ---- what is asked ----

def alternatives(text):
    """`a|b` to a and b; what stands in double quotes stays together."""
    found, is_quoted, is_escaped = [""], False, False
    for c in text:
        is_quoted ^= c == '"' and not is_escaped
        is_escaped = c == "\\" and not is_escaped
        if c == "|" and not is_quoted:
            found.append("")
        else:
            found[-1] += c
    return found


def expressions():
    """Section and expression."""
    seen, section = set(), None
    with open(os.path.join(HERE, "ask.txt"), encoding="utf-8") as file:
        for line in file.read().splitlines():
            if line.startswith("=== "):
                section = line[4:]
            elif section is not None:
                parts = re.split("<<(.*?)>>(?!>)", line)
                for chosen in itertools.product(*map(alternatives, parts)) if len(parts) > 1 else [(line,)]:
                    text = "".join(chosen).replace("@END", str(END))
                    if text not in seen:
                        seen.add(text)
                        yield section, text


TOKEN = re.compile(r'"(?:\\.|[^"\\])*"|[A-Za-z_]\w*|\d[\w.]*|=~|!~|!=|==|<=|>=|\s+|.', re.DOTALL)
SPARE = ("( ) { } [ ] , : @ + - * / % ^ == != <= < >= > =~ !~ = bool and or unless atan2 on ignoring group_left group_right "
         "by without offset start end sum topk quantile rate abs s g 5m 1 1.5 0x1F NaN Inf \"a\" 'b' `c` # \n . ; ! ~ $ \\ time "
         "1e 1h5 _ () {} [5m] [5m:1m] [5m:] start() end() on(a) by(a)").split(" ")


def broken(count):
    """Expressions of which one or two tokens are gone, doubled, another or elsewhere."""
    dice = random.Random(1)
    known_to_differ = re.compile(r"step|range|info|\\|NaN|922337")
    whole = [text for _, text in expressions() if len(text) > 4 and not known_to_differ.search(text)]
    for _ in range(count):
        tokens = TOKEN.findall(dice.choice(whole))
        for _ in range(dice.choice((1, 1, 2))):
            at, other = dice.randrange(len(tokens)), dice.randrange(len(tokens))
            tokens[at:at + 1] = dice.choice((
                [], [tokens[at]] * 2, [dice.choice(SPARE)], [tokens[at], dice.choice(SPARE)], [tokens[other]]))
            tokens = tokens or [""]
        yield "".join(tokens)


def url(path, *pairs):
    return path + "?" + urllib.parse.urlencode(pairs) if pairs else path


def about_expressions():
    """Key, method, path, headers, body; and whether the order of a vector counts."""
    for section, text in expressions():
        ways = [("instant", url(API + "query", ("query", text), ("time", END - 15))),
                ("range", url(API + "query_range", ("query", text), ("start", END - 1200), ("end", END), ("step", 67))),
                ("format", url(API + "format_query", ("query", text))),
                ("parse", url(API + "parse_query", ("query", text)))]
        for way, path in ways:
            yield "%s %s" % (way, text), "GET", path, {}, None, section == "sorting"
        for way, path in ways[:2]:
            yield "stats %s %s" % (way, text), "GET", path + "&stats=all", {}, None, False

    for text in broken(3000):
        yield "broken %s" % text, "GET", url(API + "format_query", ("query", text)), {}, None, False


TIMES = ["0", "-1", "1.5", "1e3", "0x10", "1_000", "1__0", " 1", "abc", "1h", "now", "2020-01-01", "2020-01-01T00:00:00",
         "2020-01-01T00:00:00Z", "2020-01-01t00:00:00z", "2020-01-01T00:00:00.123456789Z", "2020-01-01T00:00:00,5Z",
         "2020-01-01T00:00:00+02:00", "2020-01-01T00:00:00+0200", "2020-01-01T24:00:00Z", "2020-02-30T00:00:00Z",
         "2020-01-01T00:00:60Z", "10000-01-01T00:00:00Z", "-0", "1e-3", "0.0005", "0.0015", "1.0005", "1,5", "1.", "+1",
         ".5", "2020-1-01T00:00:00Z", "2020-01-01T00:00:00+25:00", "%", "ï", "0x1p4", "-0X_1.8P+1", "0x1p", "0b1", "0o7", "1e1_0", "Inf",
         "-inf", "+Infinity", "nan", "+nan", "1e10", "1e11", "-1e11", "9007199254740993", "1e16", "1e17", "1e400", "9999-12-31T23:59:59Z",
         "0000-01-01T00:00:00Z", "-292273086-05-16T16:47:06Z", "292277025-08-18T07:12:54.999999999Z"]
DURATIONS = ["0", "-1", "1", "1.5", "0.001", "0.0004", "1e3", "1s", "1h30m", "1d", "1w", "1y", "1ms", "-1s", "+1s", "1.5s",
             "1x", "", "abc", "NaN", "Inf", "1e300", "9223372036", "9223372037", "9223372036.854775807", "1m1h", "1 m",
             "0x10", "1_000", "1M", "1us", "292y", "293y", "1e10", "5e-324", "100000000000s", "0x1p4", "0x1p-2",
             "0x1", "1e1_0", "-Inf", "infinity", "1e400"]
LIMITS = ["0", "1", "2", "-1", "-0", "+1", "1.5", "1e3", "abc", "", " 1", "0x1", "01", "1_0", "9223372036854775807",
          "9223372036854775808", "-9223372036854775809", "NaN"]
SELECTORS = ["s", "", " ", "#", "{}", '{a=""}', '{a=~".*"}', '{a=~".+"}', 'l{a="x"}', 'l{a!="x"}', 'l{a=~"x|y"}', '{__name__=~"x."}',
             '{"utf.8 name"}', "{", "s[5m]", "s offset 5m", "s @ 5", "sum(s)", "1", '"a"', "-s", "(s)", "s,l", "s or l", "nope",
             'g{k=~"*"}', '{nope=""}', 's{nope=""}', "s # c", "\xff", '{"s","l"}', 's{__name__="s"}', 's{"l"}', "bool", " s "]
LABELS = ["a", "__name__", "nope", "l.x", "U__l_2e_x", "U__l_2E_x", "U__", "U___", "1a", "a-b", "%ff", "a%20b", "%C3%A9", "a%2Fb",
          "", "a/b", "..", "a:b", "U__l__x", "U__a_zz_", "a%", "%zz"]
PATHS = ["query", "query_range", "query_exemplars", "format_query", "parse_query", "labels", "label/a/values", "series",
         "scrape_pools", "targets", "targets/metadata", "metadata", "status/walreplay", "notifications", "read", "write", "alerts",
         "rules", "admin/tsdb/delete_series", "label/a", "status", "nope", "status/tsdb/blocks", "a/../query", "./query", "query/", "Query",
         "QUERY_range/", "labels/", "label/", "label/a/", "label/A/Values/", "series/", "Status/TSDB", "admin/TSDB/snapshot/", "read/", "rules/",
         "rules/x/", "%71uery", "label%2Fa%2Fvalues", "labels%2F", "%2F", "..", "x/..", "targets/metadata/"]
METHODS = ["GET", "HEAD", "OPTIONS", "POST", "PUT", "DELETE", "PATCH", "FOO"]


def faults(wrong, right):
    """Parameters of which two are wrong."""
    for (one, its), (other, others) in itertools.combinations(wrong.items(), 2):
        for pair in itertools.product(its, others):
            yield {**right, one: pair[0], other: pair[1]}.items()


def about_parameters():
    query, ranged = API + "query", API + "query_range"
    for text in TIMES:
        yield url(query, ("query", "time()"), ("time", text))
        yield url(ranged, ("query", "1"), ("start", text), ("end", "2020-01-01T00:00:05Z"), ("step", "1e9"))
        yield url(ranged, ("query", "time()"), ("start", "-1e9"), ("end", text), ("step", "1e9"))
        for name in ("start", "end"):
            yield url(API + "labels", (name, text))
            yield url(API + "series", ("match[]", "s"), (name, text))
            yield url(API + "query_exemplars", ("query", "s"), ("start", 1), ("end", 1), (name, text))
    for text in DURATIONS:
        for asked in ("s", "time()"):
            yield url(ranged, ("query", asked), ("start", END - 100), ("end", END), ("step", text))
        # Whether a query is in time for a short one hangs on the machine.
        is_long = not re.fullmatch(r"[-0].*|0|1ms|5e-324|NaN|9223372036.85.*", text)
        for name in ("timeout", "lookback_delta")[not is_long:]:
            yield url(query, ("query", "count(g)"), ("time", END - 15), (name, text))
            yield url(ranged, ("query", "count(g)"), ("start", END - 100), ("end", END), ("step", 20), (name, text))
    for text in LIMITS:
        for asked in ("l", "1", '"a"', "l[1m]"):
            yield url(query, ("query", asked), ("time", END - 15), ("limit", text))
        yield url(ranged, ("query", "l"), ("start", END - 100), ("end", END), ("step", 60), ("limit", text))
        for path in ("series", "labels", "label/a/values"):
            yield url(API + path, ("match[]", "l"), ("limit", text))
        yield url(API + "metadata", ("limit", text))
        yield url(API + "metadata", ("limit_per_metric", text))
    for text in SELECTORS:
        for path in ("series", "labels", "label/a/values", "label/l.x/values"):
            yield url(API + path, ("match[]", text))
        yield url(API + "series", ("match[]", "s"), ("match[]", text))
        yield url("/federate", ("match[]", text))
        yield url(API + "targets/metadata", ("match_target", text))
        yield url(API + "query_exemplars", ("query", text), ("start", 1), ("end", 2))
    for name in LABELS:
        yield API + "label/" + name + "/values"
    # Which of two mistakes is told.
    wrong = {"query": ["(", "foo()", "s[5m]"], "start": ["x", ""], "end": ["x", "0"], "step": ["x", "0", "-1", ""], "time": ["x"],
             "timeout": ["x"], "limit": ["x", "-1"], "lookback_delta": ["x"], "stats": ["x"]}
    for pairs in faults(wrong, {"query": "1", "start": "1", "end": "5", "step": "1", "time": "1"}):
        yield url(ranged, *pairs)
        yield url(query, *pairs)
    for text in ("(", "s[5m]", "1"):
        yield url(ranged, ("query", text), ("start", 1), ("end", 1e9), ("step", 1), ("limit", "x"), ("timeout", "x"))
    wrong = {"match[]": ["{", "sum(s)", '{a=""}'], "start": ["x", "9"], "end": ["x", "1"], "limit": ["x", "-1"]}
    for path in ("labels", "label/a/values", "label/%ff/values", "series", "admin/tsdb/delete_series"):
        for pairs in faults(wrong, {}):
            yield url(API + path, *pairs)
        for two in itertools.permutations(wrong["match[]"], 2):
            yield url(API + path, *(("match[]", text) for text in two))
    for pairs in faults({"query": ["(", "1", ""], "start": ["x", "9", ""], "end": ["x", "1", ""]}, {}):
        yield url(API + "query_exemplars", *pairs)
    for pairs in faults({"match_target": ["{"], "limit": ["x"], "metric": ["a"]}, {}):
        yield url(API + "targets/metadata", *pairs)
    yield url(API + "metadata", ("limit", "x"), ("limit_per_metric", "y"))
    for two in itertools.permutations(("{", "sum(s)", "s"), 2):
        yield url("/federate", *(("match[]", text) for text in two))
    for path in ("labels", "series", "query", "format_query", "query_exemplars"):
        yield API + path + "?match[]=%zz&query=1&time=1"
        yield API + path + "?a;b&time=1"
    for pairs in ("query&time=1", "=1&query=1&time=1", "query=1+1&time=1", "query=1%2b1&time=1", "query=%FF&time=1",
                  "query=%22%FF%22&time=1", "query=s{k=%60%FF%60}&time=1", "query=1%001&time=1", "QUERY=1&time=1",
                  "&&query=1&&time=1&", "query=1&query=2&time=1", 'query=g{k="const"}&time=1', "query=1>2&time=1", 'query="é<ï>"&time=1',
                  "query=1#2&time=1", "query=`a`&time=1", 'query={"utf.8 name"}&time=1', "query=1+%23+2&time=1"):
        yield query + "?" + pairs


def about_the_rest():
    """As `about_expressions`."""
    table = [("GET", path, {}, None) for path in about_parameters()]
    for path, method in itertools.product(PATHS, METHODS):
        table.append((method, API + path, {}, None))
        if method in ("GET", "OPTIONS"):
            table.append((method, API + path, {"Origin": "http://x.y", "Access-Control-Request-Method": "GET"}, None))
    for path, method in itertools.product(("federate", "-/healthy", "-/ready", "version", "graph", "metrics"), METHODS):
        table.append((method, "/" + path + "/", {}, None))
    for path in ("query", "labels", "series", "query_range", "format_query", "query_exemplars", "label/a/values", "read"):
        for form in (b"match[]=s&query=1&start=1&end=2&step=1&time=1", b"match[]=s&match[]=l&limit=1&time=1", b"query=%zz", b"x=1;y=2", b""):
            table.append(("POST", API + path, FORM, form))
    parts = "".join('--b\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n' % pair for pair in (
        ("query", "s"), ("match[]", "s"), ("start", "1"), ("end", "2"), ("step", "1"), ("time", "1"), ("query", "1")))
    for path in ("query", "query?query=7&time=1", "labels", "series", "query_range", "format_query", "query_exemplars", "label/a/values"):
        for kind in ("multipart/form-data; boundary=b", 'Multipart/Form-Data; x=y; boundary="b"', "multipart/mixed; boundary=b"):
            table.append(("POST", API + path, {"Content-Type": kind}, (parts + "--b--").encode()))
        table.append(("POST", API + path, {"Content-Type": "multipart/form-data; boundary=b"}, parts.encode()))
    kinds = [None, "text/plain", "x", ";", "APPLICATION/x-www-form-urlencoded", "application/x-www-form-urlencoded;charset"]
    table += [("POST", API + "query", {"Content-Type": kind} if kind else {}, b"query=1&time=1") for kind in kinds]
    # A form and a URL that are both wrong.
    for pairs, form in (("time=x", "query=("), ("query=(", "query=1&time=x"), ("query=1&time=1", "query=("), ("time=1", "query=1&time=x"),
                        ("limit=x", "query=(&time=1"), ("%zz", "query=("), ("query=(", "%zz"), ("query=(&%zz", "%yy"), ("a;b", "%zz"),
                        ("time=1", "query=1&x=%zz&query=("), ("start=x", "query=(&end=x&step=x"), ("match[]={", "start=x"), ("start=x", "match[]={")):
        for path in ("query", "query_range", "series", "labels"):
            table.append(("POST", API + path + "?" + pairs, FORM, form.encode()))
    accepted = ["gzip", "deflate", "gzip;q=0", "GZIP", "br, gzip", "deflate, gzip", "*", "identity", "zstd"]
    for path in ("query?query=1&time=1", "query?query=(", "labels", "nope", "admin/tsdb/delete_series"):
        table += [("GET", API + path, {"Accept-Encoding": text}, None) for text in accepted]
        table += [("GET", API + path, {"Origin": text}, None) for text in ("http://a.b", "null", "")]
    for pairs in ("match[]=", "match[]=(", "match[]=nope", "match[]=nope&start=x", "match[]=nope&start=5&end=1", "match[]={}",
                  "match[]=nope&match[]=(", ""):
        for method in ("POST", "PUT", "DELETE"):
            table.append((method, API + "admin/tsdb/delete_series?" + pairs, {}, None))
    formats = ["text/plain", "text/plain;version=0.0.4;escaping=values", "text/plain;version=1.0.0;escaping=allow-utf-8",
               "application/openmetrics-text;version=1.0.0", "*/*"]
    for text, name in itertools.product(formats, ("s", "t", "g", "b_bucket", '{"utf.8 name"}', "l")):
        table.append(("GET", url("/federate", ("match[]", name)), {"Accept": text}, None))
    # Nothing of it was deleted.
    table.append(("GET", url(API + "query", ("query", 'sort_desc(count by(__name__)({__name__!=""}))'), ("time", END - 15)), {}, None))
    for method, path, headers, body in table:
        told = [method, path] + ["%s: %s" % pair for pair in headers.items()] + ([body.decode()] if body else [])
        yield " ".join(told), method, path, headers, body, False


# ---- asking and comparing ----

class Asker:
    """A connection for each thread and server."""
    connections = threading.local()

    @classmethod
    def ask(cls, server, method, path, headers, body):
        """Code, headers and text."""
        for _ in range(2):
            held = cls.connections.__dict__
            connection = held.pop(server, None) or http.client.HTTPConnection(server[len("http://"):], timeout=60)
            try:
                connection.request(method, urllib.parse.quote(path, safe="/?&=%+:;,{}[]()*!~'\"#@<>`"), body, headers)
                answer = connection.getresponse()
                text = answer.read()
            except (OSError, http.client.HTTPException) as error:
                found = 0, {}, type(error).__name__
                continue
            held[server] = connection
            if answer.headers["content-encoding"]:
                # Two compressors; that there is one is compared.
                text = b""
            kept = {name: answer.headers[name] for name in HEADERS if answer.headers[name]}
            return answer.status, kept, text.decode(errors="replace").strip()
        return found


def canonical(text, is_ordered):
    """What is compared; notes have no order, and an instant vector has one where it was sorted."""
    try:
        answer = json.loads(text)
    except ValueError:
        return text
    for notes in ("warnings", "infos"):
        answer[notes] = sorted(answer.get(notes, []))
    data = answer.get("data")
    if isinstance(data, dict) and "stats" in data:
        # What a question took, not for how long; its result is compared without.
        return data["stats"]["samples"]
    if isinstance(data, dict) and data.get("resultType") == "vector" and not is_ordered:
        data["result"].sort(key=lambda one: sorted(one["metric"].items()))
    return answer


def is_near(a, b):
    """Alike but for the last digits of numbers."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(is_near(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(is_near, a, b))
    try:
        return a == b or abs(float(a) - float(b)) <= 1e-14 * abs(float(b))
    except (TypeError, ValueError):
        return False


def compared(servers, question):
    """The question's key with both answers if they differ."""
    key, method, path, headers, body, is_ordered = question
    ours, theirs = [Asker.ask(server, method, path, headers, body) for server in servers]
    if ours == theirs:
        return None
    if ours[:2] == theirs[:2]:
        texts = [canonical(one[2], is_ordered) for one in (ours, theirs)]
        if texts[0] == texts[1] or ADDS_UP.search(key) and is_near(*texts):
            return None
    return key, ours, theirs


def short(answer, other):
    """From a little before where they part."""
    code, headers, text = answer
    at = next((i for i, (a, b) in enumerate(zip(text, other[2])) if a != b), 0)
    return "%d %s %s" % (code, "" if headers == other[1] else headers, text[max(0, at - 60):at + 140])


def differences(servers, only):
    asked = [question for question in itertools.chain(about_expressions(), about_the_rest()) if only in question[0]]
    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        yield from filter(None, threads.map(lambda question: compared(servers, question), asked))
    print("%d questions" % len(asked))


def main():
    chosen = known.options("QUESTION")
    verdict, started = known.Verdict("ask_known.txt", chosen), []
    with tempfile.TemporaryDirectory() as folder:
        try:
            for name, binary, flags in (("q", chosen.quorate, OWN), ("p", chosen.prometheus, [])):
                started.append(Server(binary, os.path.join(folder, name), CONFIG, FLAGS + flags))
                for body in requests((END - STEPS * 15) * 1000):
                    urllib.request.urlopen(urllib.request.Request(started[-1].url + "/api/v1/write", body, V1)).read()
            for key, ours, theirs in differences([server.url for server in started], chosen.only):
                verdict.tell(key, short(ours, theirs), short(theirs, ours))
        finally:
            for server in started:
                server.stop()
    verdict.end()


if __name__ == "__main__":
    main()
