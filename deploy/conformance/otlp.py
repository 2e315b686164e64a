#!/usr/bin/env python3
"""OTLP metrics: the same requests to quorate and to a real Prometheus, all series compared; and the
real OpenTelemetry SDK by HTTP and gRPC against quorate.

  deploy/conformance/otlp.py QUORATE [--prometheus PROMETHEUS] [--sdk PYTHON]

PYTHON is one that has opentelemetry-sdk and its exporters; without it that part is skipped aloud. So is
the comparison with a Prometheus that has no OTLP receiver (Debian's is built without one).
Exits with 0, with 1 on a difference, with 77 when nothing could be run.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request

NOW = int(time.time()) - 60
PATH = "/api/v1/otlp/v1/metrics"
CONFIGURATIONS = {
    "plain": "",
    "all promoted": "otlp: {promote_all_resource_attributes: true, ignore_resource_attributes: [host.name]}",
    "some promoted": "otlp: {promote_resource_attributes: [host.name, service.name]}",
    "untranslated": "otlp: {translation_strategy: NoTranslation, keep_identifying_resource_attributes: true}",
    "suffixes": "otlp: {translation_strategy: NoUTF8EscapingWithSuffixes}",
    "custom buckets": "otlp: {convert_histograms_to_nhcb: true}",
}


def attribute(key, **value):
    return {"key": key, "value": value}


def text(key, value):
    return attribute(key, stringValue=value)


def at(offset=0):
    return str((NOW + offset) * 1_000_000_000)


def point(offset=0, **fields):
    return {"timeUnixNano": at(offset), **fields}


def metric(name, form, points, unit="", **fields):
    return {"name": name, "unit": unit, form: {"dataPoints": points, **fields}}


def request(metrics, resource=(), scope=None):
    scope = scope or {"name": "scope", "version": "1.2"}
    return {"resourceMetrics": [{"resource": {"attributes": list(resource)},
                                 "scopeMetrics": [{"scope": scope, "metrics": metrics}]}]}


CUMULATIVE = {"aggregationTemporality": 2}


def requests():
    """Name and request."""
    shop = [text("service.name", "shop"), text("service.namespace", "eu"),
            text("service.instance.id", "i-1"), text("host.name", "h1"), text("os.type", "linux")]
    yield "gauges", request([
        metric("temp", "gauge", [point(asDouble=1.5), point(10, asDouble=2.5)], "Cel"),
        metric("ratio", "gauge", [point(asInt="3")], "1"),
        metric("speed.of.x", "gauge", [point(asDouble=1e300)], "m/s"),
        metric("7days", "gauge", [point(asInt=7)], "{things}"),
        metric("ünï.cödé", "gauge", [point(asInt=7)], "By"),
    ], shop)
    values = [attribute("b", boolValue=True), attribute("i", intValue="42"), attribute("d", doubleValue=0.25),
              attribute("l", arrayValue={"values": [{"stringValue": "<a>"}, {"intValue": 1}]}),
              attribute("m", kvlistValue={"values": [text("z", "1"), text("a", "2")]}),
              attribute("y", bytesValue="AQID"), attribute("none"),
              text("a.b", "1"), text("a_b", "2"), text("_x", "1"), text("9", "1")]
    yield "attributes", request([metric("attributes", "gauge", [point(asInt=1, attributes=values)])], shop[:1])
    yield "sums", request([
        metric("requests", "sum", [point(asInt=10), point(15, asInt=20)], isMonotonic=True, **CUMULATIVE),
        metric("bytes_total", "sum", [point(asInt=10)], "By", isMonotonic=True, **CUMULATIVE),
        metric("queue", "sum", [point(asInt=-3)], **CUMULATIVE),
        metric("delta", "sum", [point(asInt=1)], isMonotonic=True, aggregationTemporality=1),
    ], shop[:1])
    yield "explicit buckets", request([metric("latency", "histogram", [
        point(count="6", sum=2.5, bucketCounts=["1", "2", "3"], explicitBounds=[0.005, 10]),
        point(count="0", bucketCounts=["0", "0"], explicitBounds=[1], attributes=[text("empty", "yes")]),
    ], "s", **CUMULATIVE)], shop)
    exponential = {"count": "16", "sum": 9.5, "zeroCount": "1",
                   "positive": {"offset": -3, "bucketCounts": ["1", "0", "2", "0", "0", "0", "4"]},
                   "negative": {"offset": 1, "bucketCounts": ["8"]}}
    yield "exponential buckets", request([metric("exp", "exponentialHistogram", [
        point(scale=scale, attributes=[text("scale", str(scale))], **exponential) for scale in (-4, 0, 3, 8, 9, 12)
    ], "s", **CUMULATIVE)], shop)
    yield "summary", request([metric("sum", "summary", [
        point(count="3", sum=4, quantileValues=[{"quantile": 0.5, "value": 1}, {"quantile": 1, "value": 2.5}])])], shop)
    yield "target over time", request([metric("long", "gauge", [
        point(-1200, asInt=1), point(-600, asInt=1), point(0, asInt=1)])], shop[:2] + [text("service.version", "7")])
    yield "nameless resource", request([metric("orphan", "gauge", [point(asInt=1)])], [text("host.name", "h2")])


class Server:
    def __init__(self, binary, folder, config, flags):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.url = "http://127.0.0.1:%d" % free.getsockname()[1]
        os.makedirs(folder)
        with open(os.path.join(folder, "c.yml"), "w") as file:
            file.write("global: {scrape_interval: 15s}\nstorage: {tsdb: {out_of_order_time_window: 1h}}\n" + config + "\n")
        command = [binary, "--config.file=" + os.path.join(folder, "c.yml"), "--storage.tsdb.path=" + os.path.join(folder, "data"),
                   "--web.listen-address=" + self.url[len("http://"):], "--web.enable-otlp-receiver",
                   "--enable-feature=native-histograms"] + flags
        self.log = open(os.path.join(folder, "log"), "wb")
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log)
        for _ in range(300):
            try:
                urllib.request.urlopen(self.url + "/-/ready", timeout=2).read()
                return
            except OSError:
                if self.process.poll() is not None:
                    break
                time.sleep(0.1)
        self.stop()
        with open(os.path.join(folder, "log"), errors="replace") as file:
            raise RuntimeError("%s did not start: %s" % (binary, file.read()[-400:]))

    def stop(self):
        self.process.terminate()
        self.process.wait(20)

    def send(self, body):
        sent = urllib.request.Request(self.url + PATH, json.dumps(body).encode(), {"Content-Type": "application/json"})
        try:
            answer = urllib.request.urlopen(sent, timeout=20)
        except urllib.error.HTTPError as error:
            answer = error
        return answer.status, answer.read().decode()

    def series(self):
        """Every series with its samples of the last hour."""
        query = urllib.parse.urlencode({"query": '{__name__=~".+"}[1h]', "time": NOW + 30})
        answer = json.load(urllib.request.urlopen(self.url + "/api/v1/query?" + query, timeout=20))
        return {json.dumps(one.pop("metric"), sort_keys=True, ensure_ascii=False): one for one in answer["data"]["result"]}


def compare(ours, theirs):
    differences = []
    for labels in sorted(ours.keys() | theirs.keys()):
        if ours.get(labels) != theirs.get(labels):
            differences.append("%s\n    ours   %s\n    theirs %s" % (labels, ours.get(labels), theirs.get(labels)))
    return differences


def has_receiver(prometheus):
    return "otlp" in subprocess.run([prometheus, "--help"], capture_output=True, text=True).stdout


OWN = ["--push.listen-address=", "--cluster.listen-address=127.0.0.1:0"]


def beside(quorate, prometheus, folder):
    failed = 0
    for i, (name, config) in enumerate(CONFIGURATIONS.items()):
        ours = Server(quorate, os.path.join(folder, "q%d" % i), config, OWN)
        try:
            theirs = Server(prometheus, os.path.join(folder, "p%d" % i), config, [])
            try:
                for what, body in requests():
                    codes = [one.send(body)[0] for one in (ours, theirs)]
                    if codes[0] != codes[1]:
                        failed += 1
                        print("FAIL %s: %s: codes %s" % (name, what, codes))
                found = compare(ours.series(), theirs.series())
                failed += len(found)
                print("%-16s %3d series, %d differ" % (name, len(theirs.series()), len(found)))
                for one in found[:10]:
                    print("  " + one)
            finally:
                theirs.stop()
        finally:
            ours.stop()
    return failed


SDK = r"""
import sys, time
from opentelemetry.metrics import Observation
from opentelemetry.sdk.metrics import MeterProvider, Histogram
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.metrics.view import View, ExponentialBucketHistogramAggregation
from opentelemetry.sdk.resources import Resource
kind, endpoint = sys.argv[1:]
if kind == "grpc":
    from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
    from grpc import Compression
    exporter = OTLPMetricExporter(endpoint=endpoint, insecure=True, compression=Compression.Gzip)
else:
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.http import Compression
    exporter = OTLPMetricExporter(endpoint=endpoint, compression=Compression.Gzip)
resource = Resource.create({"service.name": "sdk-" + kind, "service.instance.id": "1", "host.name": "h"})
reader = PeriodicExportingMetricReader(exporter, export_interval_millis=3600000)
views = [View(instrument_name="exponential", aggregation=ExponentialBucketHistogramAggregation())]
provider = MeterProvider(resource=resource, metric_readers=[reader], views=views)
meter = provider.get_meter("checks", "1")
counter = meter.create_counter("orders", unit="1")
counter.add(3, {"item": "tea"})
meter.create_up_down_counter("queue.length").add(-2)
meter.create_observable_gauge("room.temperature", [lambda options: [Observation(21.5)]], unit="Cel")
explicit, exponential = meter.create_histogram("explicit", unit="s"), meter.create_histogram("exponential", unit="s")
for value in (0.1, 4, 70):
    explicit.record(value)
    exponential.record(value)
assert provider.force_flush(10000), "not exported"
counter.add(2, {"item": "tea"})
time.sleep(0.05)
assert provider.force_flush(10000), "not exported again"
provider.shutdown()
"""


def sdk(quorate, python, folder):
    """The SDK of the field, each exporter, and what a query then says."""
    failed = 0
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        grpc = "127.0.0.1:%d" % free.getsockname()[1]
    server = Server(quorate, os.path.join(folder, "sdk"), "", OWN + ["--otlp.grpc-listen-address=" + grpc])
    try:
        for kind, endpoint in (("http", server.url + PATH), ("grpc", "http://" + grpc)):
            run = subprocess.run([python, "-c", SDK, kind, endpoint], capture_output=True, text=True, timeout=120)
            if run.returncode or "Failed to export" in run.stderr:
                failed += 1
                print("FAIL sdk %s: %s" % (kind, run.stderr[-600:]))
                continue
            labels = 'job="sdk-%s",instance="1"' % kind
            for query, expected in (
                ("orders_total{item=\"tea\",%s}", "5"),
                ("queue_length{%s}", "-2"),
                ("room_temperature_celsius{%s}", "21.5"),
                ("explicit_seconds_bucket{le=\"5\",%s}", "2"),
                ("explicit_seconds_count{%s}", "3"),
                ("histogram_count(exponential_seconds{%s})", "3"),
                ("histogram_sum(exponential_seconds{%s})", "74.1"),
                ("target_info{host_name=\"h\",telemetry_sdk_language=\"python\",%s}", "1"),
            ):
                asked = urllib.parse.urlencode({"query": query % labels})
                answer = json.load(urllib.request.urlopen(server.url + "/api/v1/query?" + asked, timeout=20))
                found = [one["value"][1] for one in answer["data"]["result"]]
                if found != [expected]:
                    failed += 1
                    print("FAIL sdk %s: %s is %s, not %s" % (kind, query % labels, found, expected))
            print("sdk %s looked at" % kind)
    finally:
        server.stop()
    return failed


def main():
    options = argparse.ArgumentParser()
    options.add_argument("quorate")
    options.add_argument("--prometheus")
    options.add_argument("--sdk", metavar="PYTHON")
    chosen = options.parse_args()
    failed, ran = 0, 0
    with tempfile.TemporaryDirectory() as folder:
        if chosen.prometheus and has_receiver(chosen.prometheus):
            failed += beside(chosen.quorate, chosen.prometheus, folder)
            ran += 1
        else:
            print("SKIP: no Prometheus with an OTLP receiver")
        if chosen.sdk:
            failed += sdk(chosen.quorate, chosen.sdk, folder)
            ran += 1
        else:
            print("SKIP: no Python with the OpenTelemetry SDK")
    print("%d differences" % failed)
    sys.exit(1 if failed else 0 if ran else 77)


if __name__ == "__main__":
    main()
