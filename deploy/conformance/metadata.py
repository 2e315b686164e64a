#!/usr/bin/env python3
"""What metrics mean and differences that add up, on three nodes of which one dies.

  deploy/conformance/metadata.py QUORATE [--prometheus PROMETHEUS]

Metadata comes by a scrape, remote write, OTLP and a push, each at another node; every node must tell all
of it, /federate?types=1 must be what Prometheus' own client for Python reads, and a real Prometheus, where
there is one, must learn the types from it as text and as protobuf. Then points of delta temporality go
to all nodes, each twice, while one is killed. Needs prometheus_client.
Exits with 0, with 1 on the first thing that is wrong, with 77 when nothing could be run.
"""

import argparse
import http.server
import json
import os
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

try:
    from prometheus_client.parser import text_string_to_metric_families
except ImportError:
    print("SKIP: no prometheus_client")
    sys.exit(77)

SECOND = 10**9
EXPOSITION = b"""# HELP lat Latency.
# TYPE lat histogram
lat_bucket{p="a",le="0.5"} 1
lat_bucket{p="a",le="+Inf"} 3
lat_sum{p="a"} 2.5
lat_count{p="a"} 3
# TYPE lat_created gauge
lat_created{p="a"} 5
# HELP hits_total Hits.
# TYPE hits_total counter
hits_total 7
# TYPE s summary
s{quantile="0.5"} 1
s_sum 4
s_count 2
"""
# By name of the family as the client for Python has it: without _total.
TYPES = {"lat": "histogram", "hits": "counter", "s": "summary", "w": "histogram", "temp": "gauge",
         "req_seconds": "counter", "pushed": "gauge", "w_bucket_size": "unknown"}
HELP = "Temperature \\ of\nthe room."


class Target(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("content-type", "text/plain; version=0.0.4")
        self.end_headers()
        self.wfile.write(EXPOSITION)

    def log_message(self, *_):
        pass


def free():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def ask(url, body=None, headers=None, method=None):
    request = urllib.request.Request(url, data=body, headers=headers or {}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read(), answer.headers
    except urllib.error.HTTPError as error:
        return error.code, error.read(), error.headers


def until(what, done, seconds=60):
    """Asks again until something is true of the answer, which is returned."""
    end = time.time() + seconds
    while True:
        try:
            found = done()
        except (OSError, KeyError, IndexError, ValueError) as error:
            found, last = None, error
        else:
            last = found
        if found:
            return found
        if time.time() > end:
            sys.exit("FAIL %s: %s" % (what, last))
        time.sleep(0.2)


def check(what, found, expected):
    if found != expected:
        sys.exit("FAIL %s: %s, not %s" % (what, found, expected))


class Cluster:
    def __init__(self, quorate, folder, target):
        self.quorate, self.folder = quorate, folder
        self.inner, self.web, self.push = ([free() for _ in range(3)] for _ in range(3))
        self.config = os.path.join(folder, "prometheus.yml")
        with open(self.config, "w") as out:
            out.write("global: {scrape_interval: 1s}\nscrape_configs:\n- job_name: t\n"
                      "  static_configs: [{targets: ['127.0.0.1:%d']}]\n" % target)
        self.nodes = [None] * 3
        for node in range(3):
            self.start(node)
        for node in range(3):
            self.wait(node)

    def start(self, node):
        others = ",".join("127.0.0.1:%d" % port for n, port in enumerate(self.inner) if n != node)
        with open(os.path.join(self.folder, "log%d" % node), "a") as log:
            self.nodes[node] = subprocess.Popen(
                [self.quorate, "--config.file=" + self.config, "--cluster.join=" + others,
                 "--web.listen-address=127.0.0.1:%d" % self.web[node],
                 "--push.listen-address=127.0.0.1:%d" % self.push[node],
                 "--cluster.listen-address=127.0.0.1:%d" % self.inner[node],
                 "--cluster.bootstrap-expect=3", "--cluster.shards=4",
                 "--enable-feature=otlp-deltatocumulative",
                 "--storage.tsdb.path=" + os.path.join(self.folder, "node%d" % node)],
                stdout=log, stderr=subprocess.STDOUT)

    def wait(self, node):
        until("node %d is ready" % node, lambda: self.get(node, "/-/ready")[0] == 200)

    def kill(self, node):
        self.nodes[node].kill()
        self.nodes[node].wait()

    def get(self, node, path, accept=None):
        headers = {"accept": accept} if accept else {}
        return ask("http://127.0.0.1:%d%s" % (self.web[node], path), headers=headers)

    def post(self, node, path, body, kind, **more):
        headers = {"content-type": kind, **more}
        return ask("http://127.0.0.1:%d%s" % (self.web[node], path), body, headers)[:2]

    def metadata(self, node):
        return json.loads(self.get(node, "/api/v1/metadata")[1])["data"]

    def values(self, node, query):
        path = "/api/v1/query?" + urllib.parse.urlencode({"query": query})
        found = json.loads(self.get(node, path)[1])["data"]["result"]
        return [one["value"][1] for one in found]

    def otlp(self, node, metrics):
        body = json.dumps({"resourceMetrics": [{"scopeMetrics": [{"metrics": metrics}]}]}).encode()
        return self.post(node, "/api/v1/otlp/v1/metrics", body, "application/json")


def varint(number):
    out = b""
    while number >= 128:
        out += bytes([number & 127 | 128])
        number >>= 7
    return out + bytes([number])


def field(number, content):
    return varint(number << 3 | 2) + varint(len(content)) + content


def snappy(content):
    """Literals only."""
    pieces = [content[at:at + 60] for at in range(0, len(content), 60)]
    return varint(len(content)) + b"".join(bytes([len(one) - 1 << 2]) + one for one in pieces)


def remote_write(series, metadata):
    now = varint(int(time.time() * 1000))
    message = b""
    for labels, value in series:
        pairs = [field(1, name.encode()) + field(2, text.encode()) for name, text in sorted(labels.items())]
        sample = b"\x09" + struct.pack("<d", value) + b"\x10" + now
        message += field(1, b"".join(field(1, pair) for pair in pairs) + field(2, sample))
    for name, kind, text in metadata:
        message += field(3, b"\x08" + bytes([kind]) + field(2, name.encode()) + field(4, text.encode()))
    return snappy(message)


def tell(cluster):
    """Metadata by four ways at three nodes."""
    named = lambda name, **labels: {"__name__": name, **labels}
    series = [(named("w_bucket", le="+Inf"), 3), (named("w_bucket", le="1"), 1), (named("w_count"), 3),
              (named("w_sum"), 2), (named("w_bucket_size"), 9), (named("temp"), 20)]
    body = remote_write(series, [("w", 3, "Written."), ("temp", 2, HELP)])
    kind = {"content-encoding": "snappy"}
    check("remote write", cluster.post(1, "/api/v1/write", body, "application/x-protobuf", **kind)[0], 204)
    point = {"timeUnixNano": str(time.time_ns()), "asInt": "3"}
    total = {"isMonotonic": True, "aggregationTemporality": 2, "dataPoints": [point]}
    metric = {"name": "req", "unit": "s", "description": "Requests.", "sum": total}
    check("OTLP", cluster.otlp(2, [metric]), (200, b"{}"))
    url = "http://127.0.0.1:%d/metrics/job/j" % cluster.push[0]
    check("push", ask(url, b"# HELP pushed P.\n# TYPE pushed gauge\npushed 4\n", method="PUT")[0], 200)


FEDERATE = "/federate?" + urllib.parse.urlencode({"types": 1, "match[]": '{__name__!=""}'})


def look(cluster, nodes):
    """Every node tells everything, and families parse as what they are."""
    until("a scrape's metadata", lambda: "lat" in cluster.metadata(nodes[0]))
    until("a scrape's samples", lambda: b"lat_bucket" in cluster.get(nodes[0], FEDERATE)[1])
    for node in nodes:
        known = cluster.metadata(node)
        check("the help of OTLP", known["req_seconds_total"],
              [{"type": "counter", "unit": "s", "help": "Requests."}])
        check("a pushed help", known["pushed"], [{"type": "gauge", "unit": "", "help": "P."}])
        code, body, headers = cluster.get(node, FEDERATE)
        check("/federate", (code, headers["x-quorate-federate-types"]), (200, "full"))
        families = {one.name: one for one in text_string_to_metric_families(body.decode())}
        for name, kind in TYPES.items():
            check("the type of %s at node %d" % (name, node), families[name].type, kind)
        parts = sorted(sample.name for sample in families["w"].samples)
        check("parts of w", parts, ["w_bucket", "w_bucket", "w_count", "w_sum"])
        check("a help", families["temp"].documentation, HELP)
    print("metadata and families of nodes %s looked at" % nodes)


def scrape(cluster, prometheus, folder):
    """A real Prometheus learns the types, by either protocol."""
    for protocol in ("PrometheusProto", "PrometheusText0.0.4"):
        port, home = free(), os.path.join(folder, protocol)
        os.mkdir(home)
        job = {"job_name": "f", "honor_labels": True, "metrics_path": "/federate",
               "scrape_protocols": [protocol], "always_scrape_classic_histograms": True,
               "params": {"types": ["1"], "match[]": ['{__name__=~".+"}']},
               "static_configs": [{"targets": ["127.0.0.1:%d" % cluster.web[0]]}]}
        with open(os.path.join(home, "prometheus.yml"), "w") as out:
            json.dump({"global": {"scrape_interval": "1s"}, "scrape_configs": [job]}, out)
        with open(os.path.join(home, "log"), "w") as log:
            process = subprocess.Popen(
                [prometheus, "--config.file=%s/prometheus.yml" % home, "--storage.tsdb.path=%s/data" % home,
                 "--web.listen-address=127.0.0.1:%d" % port], stdout=log, stderr=subprocess.STDOUT)
        try:
            api = "http://127.0.0.1:%d/api/v1/" % port
            data = lambda path: json.loads(ask(api + path)[1])["data"]
            known = until("metadata by " + protocol, lambda: "w" in data("metadata") and data("metadata"))
            for name, kind in (("w", "histogram"), ("s", "summary"), ("hits_total", "counter"), ("temp", "gauge")):
                check("%s by %s" % (name, protocol), known[name][0]["type"], kind)
            for query, value in (("w_bucket{le='+Inf'}", "3"), ("lat_sum", "2.5"), ("s_count", "2")):
                path = "query?" + urllib.parse.urlencode({"query": query})
                found = until(query, lambda: data(path)["result"])
                check("%s by %s" % (query, protocol), [one["value"][1] for one in found], [value])
            check("the target by " + protocol, data("targets")["activeTargets"][0]["health"], "up")
        finally:
            process.terminate()
            process.wait()
        print("scraped as " + protocol)


def deltas(start, end, count):
    """A sum, an explicit and an exponential histogram of what was counted between two instants."""
    span = {"startTimeUnixNano": str(start), "timeUnixNano": str(end)}
    def metric(name, form, **point):
        return {"name": name, form: {"aggregationTemporality": 1, "isMonotonic": True, "dataPoints": [{**span, **point}]}}
    return [
        metric("d", "sum", asInt=str(count)),
        metric("h", "histogram", count=str(2 * count), sum=count * 1.5,
               bucketCounts=[str(count), str(count)], explicitBounds=[1]),
        metric("x", "exponentialHistogram", count=str(count), sum=count * 2, scale=2,
               positive={"offset": count, "bucketCounts": [str(count)]}),
    ]


def add_up(cluster):
    """Node 1 is away and comes back, then node 2 dies: each point counts once."""
    alive, total = [0, 2], 0
    start = time.time_ns() - 60 * SECOND
    for n in range(1, 11):
        points = deltas(start + (n - 1) * SECOND, start + n * SECOND, n)
        until("point %d" % n, lambda: cluster.otlp(alive[n % 2], points)[0] == 200)
        check("point %d again" % n, cluster.otlp(alive[(n + 1) % 2], points), (200, b"{}"))
        total += n
        if n == 5:
            cluster.start(1)
            cluster.wait(1)
            cluster.kill(2)
            alive = [0, 1]
    late = cluster.otlp(0, deltas(start + SECOND, start + SECOND + SECOND // 2, 7))
    check("rejected late points", json.loads(late[1])["partialSuccess"]["rejectedDataPoints"], "3")
    for node in alive:
        for query, expected in (("d_total", total), ("h_count", 2 * total), ("h_bucket{le='1.0'} or h_bucket{le='1'}", total),
                                ("histogram_count(x)", total), ("histogram_sum(x)", 2 * total),
                                ("count_over_time(d_total[10m])", 10)):
            found = until(query, lambda: cluster.values(node, query))
            check("%s at node %d" % (query, node), found, [str(expected)])
    print("differences added up")


def main():
    options = argparse.ArgumentParser()
    options.add_argument("quorate")
    options.add_argument("--prometheus")
    chosen = options.parse_args()
    target = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Target)
    threading.Thread(target=target.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory() as folder:
        cluster = Cluster(chosen.quorate, folder, target.server_address[1])
        try:
            tell(cluster)
            look(cluster, [0, 1, 2])
            if chosen.prometheus:
                scrape(cluster, chosen.prometheus, folder)
            cluster.kill(1)
            until("what was told to the dead node",
                  lambda: {"temp", "w"} <= cluster.metadata(2).keys())
            add_up(cluster)
        finally:
            for node in cluster.nodes:
                node.kill()
                node.wait()


if __name__ == "__main__":
    main()
