#!/usr/bin/env python3
"""OTLP metrics: the same requests to quorate and to a real Prometheus, all series compared; and the
real OpenTelemetry SDK by HTTP and gRPC against quorate.

  deploy/conformance/otlp.py QUORATE [--prometheus PROMETHEUS] [--sdk PYTHON] [--npm FOLDER] [--show]

--show tells what quorate makes of every request.

PYTHON is one that has opentelemetry-sdk and its exporters, FOLDER one into which npm has installed them; without
them that part is skipped aloud. So is
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

from server import Server

NOW = int(time.time()) - 60
PATH = "/api/v1/otlp/v1/metrics"
# Name, the `otlp` section, and features. A configuration that the real one does not know is skipped aloud.
CONFIGURATIONS = {
    "plain": ("", []),
    "all promoted": ("otlp: {promote_all_resource_attributes: true, ignore_resource_attributes: [host.name]}", []),
    "some promoted": ("otlp: {promote_resource_attributes: [host.name, service.name]}", []),
    "untranslated": ("otlp: {translation_strategy: NoTranslation, keep_identifying_resource_attributes: true}", []),
    "suffixes": ("otlp: {translation_strategy: NoUTF8EscapingWithSuffixes}", []),
    "no suffixes": ("otlp: {translation_strategy: UnderscoreEscapingWithoutSuffixes}", []),
    "custom buckets": ("otlp: {convert_histograms_to_nhcb: true}", []),
    "scopes": ("otlp: {promote_scope_metadata: true}", []),
    "types and units": ("", ["type-and-unit-labels"]),
    "deltas added": ("", ["otlp-deltatocumulative"]),
    "deltas kept": ("otlp: {convert_histograms_to_nhcb: true}", ["otlp-native-delta-ingestion"]),
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
    yield "no resource", {"resourceMetrics": [{"scopeMetrics": [{"metrics": [metric("bare", "gauge", [point(asInt=1)])]}]}]}
    yield "nothing", {}
    yield "no scopes", {"resourceMetrics": [{"resource": {"attributes": shop}}]}
    yield from more_requests(shop)


DELTA = {"aggregationTemporality": 1}


def more_requests(shop):
    """What is rarer."""
    absent = {"flags": 1}
    yield "no recorded value", request([
        metric("absent.gauge", "gauge", [point(asInt=1), point(10, **absent)]),
        metric("absent.sum", "sum", [point(asInt=1), point(10, **absent)], isMonotonic=True, **CUMULATIVE),
        metric("absent.hist", "histogram", [point(count="1", sum=1, bucketCounts=["1", "0"], explicitBounds=[1]),
                                            point(10, sum=0, bucketCounts=["0", "0"], explicitBounds=[1], **absent)], **CUMULATIVE),
        metric("absent.exp", "exponentialHistogram", [point(count="1", sum=1, scale=0, positive={"bucketCounts": ["1"]}),
                                                      point(10, **absent)], **CUMULATIVE),
        metric("absent.summary", "summary", [point(count="1", sum=1, quantileValues=[{"quantile": 0.9, "value": 1}]),
                                             point(10, quantileValues=[{"quantile": 0.9}], **absent)]),
    ], shop[:1])
    yield "without times", request([metric("timeless", "gauge", [{"asInt": 1}])], shop[:1])
    yield "start times", request([
        metric("started", "sum", [point(asInt=1, startTimeUnixNano=at(-30)), point(10, asInt=2, startTimeUnixNano=at(-30)),
                                  point(20, asInt=1, startTimeUnixNano=at(15))], isMonotonic=True, **CUMULATIVE),
    ], shop[:1])
    ids = {"traceId": "0102030405060708090a0b0c0d0e0f10", "spanId": "0102030405060708"}
    seen = [{"timeUnixNano": at(), "asDouble": 0.5, **ids},
            {"timeUnixNano": at(1), "asInt": "7", "filteredAttributes": [text("a.b", "c"), text("z", "é" * 100)], **ids},
            {"timeUnixNano": at(2), "asDouble": 3}, {"timeUnixNano": at(3), **ids}]
    for form in ("gauge", "sum"):
        fields = {"isMonotonic": True, **CUMULATIVE} if form == "sum" else {}
        yield "exemplars of a " + form, request([metric("seen." + form, form, [point(asInt=1, exemplars=seen[:3])], **fields)], shop[:1])
    yield "exemplars of buckets", request([metric("seen.hist", "histogram", [
        point(count="3", sum=9, bucketCounts=["1", "1", "1"], explicitBounds=[1, 5], exemplars=seen[:3])], **CUMULATIVE)], shop[:1])
    yield "exemplars of exponential buckets", request([metric("seen.exp", "exponentialHistogram", [
        point(count="1", sum=9, scale=0, positive={"bucketCounts": ["1"]}, exemplars=seen[:3])], **CUMULATIVE)], shop[:1])
    yield "an exemplar without a value", request([metric("seen.nothing", "sum", [
        point(asInt=1, exemplars=seen[3:])], isMonotonic=True, **CUMULATIVE)], shop[:1])
    odd = {"zero threshold": {"zeroThreshold": 0.5, "zeroCount": "2", "count": "2"},
           "no sum": {"count": "1", "positive": {"offset": 3, "bucketCounts": ["1"]}},
           "a sum of nothing": {"count": "0", "sum": 4},
           "zeros around": {"count": "1", "sum": 1, "positive": {"offset": -6, "bucketCounts": ["0"] * 5 + ["1"] + ["0"] * 5}},
           "only zeros": {"count": "0", "sum": 0, "positive": {"offset": 2, "bucketCounts": ["0", "0"]}},
           "far": {"count": "1", "sum": 1, "positive": {"offset": 2147483000, "bucketCounts": ["1"]}},
           "too few": {"count": "9", "sum": 1, "positive": {"bucketCounts": ["1"]}},
           "min and max": {"count": "1", "sum": 1, "min": 1, "max": 1, "positive": {"bucketCounts": ["1"]}}}
    for what, fields in odd.items():
        yield "exponential: " + what, request([metric("odd.exp", "exponentialHistogram", [
            point(scale=scale, attributes=[text("case", what), text("scale", str(scale))], **fields)
            for scale in (0, 10)], **CUMULATIVE)], shop[:1])
    yield "exponential: scale -5", request([metric("coarse", "exponentialHistogram", [
        point(scale=-5, count="1", positive={"bucketCounts": ["1"]}), point(10, scale=0, count="1", positive={"bucketCounts": ["1"]})],
        **CUMULATIVE), metric("beside.coarse", "gauge", [point(asInt=1)])], shop[:1])
    explicit = {"no buckets": {"count": "3", "sum": 1}, "no bounds": {"count": "3", "sum": 1, "bucketCounts": ["3"]},
                "more bounds": {"count": "3", "sum": 1, "bucketCounts": ["3"], "explicitBounds": [1, 2]},
                "unsorted": {"count": "3", "sum": 1, "bucketCounts": ["1", "1", "1"], "explicitBounds": [2, 1]},
                "too few": {"count": "9", "sum": 1, "bucketCounts": ["1", "1"], "explicitBounds": [1]},
                "tiny bounds": {"count": "3", "sum": 1, "bucketCounts": ["1", "1", "1"], "explicitBounds": [1e-9, 1e21]}}
    for what, fields in explicit.items():
        yield "explicit: " + what, request([metric("odd.hist", "histogram", [
            point(attributes=[text("case", what)], **fields)], **CUMULATIVE)], shop[:1])
    yield "deltas", request([
        metric("d.sum", "sum", [point(step * 10, asInt=2, startTimeUnixNano=at(step * 10 - 10)) for step in range(3)],
               isMonotonic=True, **DELTA),
        metric("d.updown", "sum", [point(step * 10, asInt=-2, startTimeUnixNano=at(step * 10 - 10)) for step in range(3)], **DELTA),
        metric("d.hist", "histogram", [point(step * 10, count="2", sum=3, bucketCounts=["1", "1"], explicitBounds=[1],
                                             startTimeUnixNano=at(step * 10 - 10)) for step in range(3)], **DELTA),
        metric("d.exp", "exponentialHistogram", [point(step * 10, count="2", sum=3, scale=1, positive={"offset": step, "bucketCounts": ["1", "1"]},
                                                       startTimeUnixNano=at(step * 10 - 10)) for step in range(3)], **DELTA),
    ], shop[:1])
    yield "no temporality", request([metric("untold", "sum", [point(asInt=1)], isMonotonic=True), metric("told", "gauge", [point(asInt=1)])], shop[:1])
    names = ["", "???", "_", "__a", "a..b", "a__b", ".a.", "a:b", "A-B c", "total", "x_total_total", "ratio", "seconds", "名前", "7", "a.seconds.total"]
    for unit in ("", "s", "1", "{x}", "By/s", "%", "a b", "/s", "m/", "kBy", "°C"):
        yield "names with unit " + unit, request([
            metric("%s" % name, form, [point(asInt=1, attributes=[text("given", name), text("form", form), text("unit", unit)])], unit, **fields)
            for name in names for form, fields in (("gauge", {}), ("sum", {"isMonotonic": True, **CUMULATIVE}))], shop[:1])
    yield "colliding names", request([metric("a.b", "gauge", [point(asInt=1)]), metric("a_b", "gauge", [point(10, asInt=2)])], shop[:1])
    yield "a value twice", request([metric("twice", "gauge", [point(asInt=1), point(asInt=2)])], shop[:1])
    yield "reserved labels", request([metric("reserved", "gauge", [point(asInt=1, attributes=[
        text("job", "own"), text("instance", "own"), text("__name__", "own"), text("le", "own"), text("__type__", "own"), text("", "own")])])], shop)
    yield "several scopes", {"resourceMetrics": [{"resource": {"attributes": shop}, "scopeMetrics": [
        {"scope": {"name": name, "version": version, "attributes": [text("a.b", "c"), text("name", "own")]}, "schemaUrl": "http://x/" + version,
         "metrics": [metric("scoped", "gauge", [point(offset, asInt=offset)])]}
        for offset, (name, version) in enumerate([("one", "1"), ("two", "2"), ("", "3")])]}]}
    yield "many attributes", request([metric("many", "gauge", [point(asInt=1, attributes=[text("k%d" % n, "v") for n in range(60)])])], shop[:1])
    yield "a resource's values", request([metric("resourceful", "gauge", [point(asInt=1)])], shop[:1] + [
        attribute("b", boolValue=True), attribute("l", arrayValue={"values": [{"stringValue": "x"}, {"doubleValue": 1e21}]}),
        attribute("m", kvlistValue={"values": [text("k", "<&>\"\u2028")]}), attribute("y", bytesValue="AQID"), attribute("n"),
        text("host-name", "a"), text("host.name", "b")])


def bad_requests():
    """Name, headers and body of what is refused before it is understood."""
    good = json.dumps(request([metric("good", "gauge", [point(asInt=1)])])).encode()
    kind = {"Content-Type": "application/json"}
    yield "no type", {"Content-Type": ""}, good
    yield "text", {"Content-Type": "text/plain"}, good
    yield "a charset", {"Content-Type": "application/json; charset=utf-8"}, good
    yield "JSON that breaks off", kind, good[:-3]
    yield "another JSON", kind, b"[]"
    yield "an unknown field", kind, b'{"x":1}'
    yield "JSON as protobuf", {"Content-Type": "application/x-protobuf"}, good
    yield "empty protobuf", {"Content-Type": "application/x-protobuf"}, b""
    yield "broken protobuf", {"Content-Type": "application/x-protobuf"}, b"\x0a\x50abc"
    yield "no gzip", {**kind, "Content-Encoding": "gzip"}, good
    yield "zstd", {**kind, "Content-Encoding": "zstd"}, good
    yield "snappy", {**kind, "Content-Encoding": "snappy"}, good


class Receiver(Server):
    """One that takes OTLP, with more of the configuration and more features."""

    def __init__(self, binary, folder, config, flags, features=()):
        config = "global: {scrape_interval: 15s}\nstorage: {tsdb: {out_of_order_time_window: 1h}}\n" + config + "\n"
        features = ",".join(["native-histograms", "exemplar-storage", *features])
        super().__init__(binary, folder, config, ["--web.enable-otlp-receiver", "--enable-feature=" + features] + flags)

    def send(self, body, headers=None):
        """Code and text; `body` is a request, or bytes with their headers."""
        if headers is None:
            body, headers = json.dumps(body).encode(), {"Content-Type": "application/json"}
        sent = urllib.request.Request(self.url + PATH, body, headers)
        try:
            answer = urllib.request.urlopen(sent, timeout=20)
        except urllib.error.HTTPError as error:
            answer = error
        return answer.status, answer.read().decode(errors="replace")

    def series(self):
        """Every series with its samples of the last hour."""
        query = urllib.parse.urlencode({"query": '{__name__=~".+"}[1h]', "time": NOW + 30})
        answer = json.load(urllib.request.urlopen(self.url + "/api/v1/query?" + query, timeout=20))
        found = {json.dumps(one.pop("metric"), sort_keys=True, ensure_ascii=False): one for one in answer["data"]["result"]}
        query = urllib.parse.urlencode({"query": '{__name__=~".+"}', "start": NOW - 3600, "end": NOW + 3600})
        answer = json.load(urllib.request.urlopen(self.url + "/api/v1/query_exemplars?" + query, timeout=20))
        for one in answer["data"]:
            found["exemplars of " + json.dumps(one["seriesLabels"], sort_keys=True, ensure_ascii=False)] = one["exemplars"]
        return found


def compare(ours, theirs):
    differences = []
    for labels in sorted(ours.keys() | theirs.keys()):
        if ours.get(labels) != theirs.get(labels):
            differences.append("%s\n    ours   %s\n    theirs %s" % (labels, ours.get(labels), theirs.get(labels)))
    return differences


def has_receiver(prometheus):
    return "otlp" in subprocess.run([prometheus, "--help"], capture_output=True, text=True).stdout


OWN = ["--push.listen-address=", "--cluster.listen-address=127.0.0.1:0"]


def knows(prometheus, folder, config):
    """Whether a real one takes a configuration: its options came one by one."""
    promtool = os.path.join(os.path.dirname(prometheus), "promtool")
    if not config or not os.path.exists(promtool):
        return True
    path = os.path.join(folder, "tried.yml")
    with open(path, "w") as file:
        file.write(config + "\n")
    return subprocess.run([promtool, "check", "config", path], capture_output=True).returncode == 0


def told(series):
    return "".join("%s\n    %s\n" % (labels, json.dumps(series[labels], ensure_ascii=False)) for labels in sorted(series))


def alone(quorate, folder):
    """What quorate makes of all that, to be read."""
    for i, (name, (config, features)) in enumerate(CONFIGURATIONS.items()):
        ours = Receiver(quorate, os.path.join(folder, "a%d" % i), config, OWN, features)
        try:
            print("== " + name)
            for what, body in requests():
                answer = ours.send(body)
                if answer != (200, "{}"):
                    print("%s: %s" % (what, answer))
            for what, headers, body in bad_requests() if i == 0 else ():
                print("%s: %s" % (what, ours.send(body, headers)))
            print(told(ours.series()))
        finally:
            ours.stop()


def beside(quorate, prometheus, folder):
    failed = 0
    for i, (name, (config, features)) in enumerate(CONFIGURATIONS.items()):
        if not knows(prometheus, folder, config):
            print("%-16s SKIP: the real one does not know it" % name)
            continue
        ours = Receiver(quorate, os.path.join(folder, "q%d" % i), config, OWN, features)
        try:
            theirs = Receiver(prometheus, os.path.join(folder, "p%d" % i), config, [], features)
            try:
                asked = [(what, body, None) for what, body in requests()]
                asked += [(what, body, headers) for what, headers, body in bad_requests()]
                for what, body, headers in asked:
                    a, b = (one.send(body, headers) for one in (ours, theirs))
                    if a[0] != b[0] or b[1].strip() not in a[1]:
                        failed += 1
                        print("FAIL %s: %s\n    ours   %s\n    theirs %s" % (name, what, a, b))
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


NPM = r"""
const { AggregationType, MeterProvider, PeriodicExportingMetricReader } = require('@opentelemetry/sdk-metrics');
const { defaultResource, resourceFromAttributes } = require('@opentelemetry/resources');
const [kind, url] = process.argv.slice(-2);
const way = { proto: 'proto', json: 'http', 'npm-grpc': 'grpc' }[kind];
const { OTLPMetricExporter } = require('@opentelemetry/exporter-metrics-otlp-' + way);
const exporter = new OTLPMetricExporter({ url, compression: 'gzip' });
const resource = defaultResource().merge(resourceFromAttributes(
  { 'service.name': 'sdk-' + kind, 'service.instance.id': '1', 'host.name': 'h' }));
const reader = new PeriodicExportingMetricReader({ exporter, exportIntervalMillis: 3600000, exportTimeoutMillis: 10000 });
const views = [{ instrumentName: 'exponential', aggregation: { type: AggregationType.EXPONENTIAL_HISTOGRAM } }];
const provider = new MeterProvider({ resource, readers: [reader], views });
const meter = provider.getMeter('checks', '1');
const counter = meter.createCounter('orders', { unit: '1' });
counter.add(3, { item: 'tea' });
meter.createUpDownCounter('queue.length').add(-2);
meter.createObservableGauge('room.temperature', { unit: 'Cel' }).addCallback((result) => result.observe(21.5));
for (const name of ['explicit', 'exponential']) {
  const histogram = meter.createHistogram(name, { unit: 's' });
  [0.1, 4, 70].forEach((value) => histogram.record(value));
}
(async () => {
  await provider.forceFlush();
  counter.add(2, { item: 'tea' });
  await new Promise((done) => setTimeout(done, 50));
  await provider.shutdown();
})().catch((error) => { console.error('Failed to export', error); process.exit(1); });
"""


def sdk(quorate, python, npm, folder):
    """The SDKs of the field, each exporter, and what a query then says."""
    failed = 0
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        grpc = "127.0.0.1:%d" % free.getsockname()[1]
    server = Receiver(quorate, os.path.join(folder, "sdk"), "", OWN + ["--otlp.grpc-listen-address=" + grpc])
    try:
        http, grpc = server.url + PATH, "http://" + grpc
        ways = []
        if python:
            ways += [("python", [python, "-c", SDK], *way) for way in (("http", http), ("grpc", grpc))]
        if npm:
            program = os.path.join(npm, "export.js")
            with open(program, "w") as file:
                file.write(NPM)
            ways += [("nodejs", ["node", program], *way) for way in (("proto", http), ("json", http), ("npm-grpc", grpc))]
        for language, program, kind, endpoint in ways:
            run = subprocess.run(program + [kind, endpoint], capture_output=True, text=True, timeout=120)
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
                ("target_info{host_name=\"h\",telemetry_sdk_language=\"" + language + "\",%s}", "1"),
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
    options.add_argument("--npm", metavar="FOLDER")
    options.add_argument("--show", action="store_true")
    chosen = options.parse_args()
    failed, ran = 0, 0
    with tempfile.TemporaryDirectory() as folder:
        if chosen.show:
            alone(chosen.quorate, folder)
        if chosen.prometheus and has_receiver(chosen.prometheus):
            failed += beside(chosen.quorate, chosen.prometheus, folder)
            ran += 1
        else:
            print("SKIP: no Prometheus with an OTLP receiver")
        if chosen.sdk or chosen.npm:
            failed += sdk(chosen.quorate, chosen.sdk, chosen.npm, folder)
            ran += 1
        if not chosen.sdk:
            print("SKIP: no Python with the OpenTelemetry SDK")
        if not chosen.npm:
            print("SKIP: no folder with the OpenTelemetry SDK of npm")
    print("%d differences" % failed)
    sys.exit(1 if failed else 0 if ran else 77)


if __name__ == "__main__":
    main()
