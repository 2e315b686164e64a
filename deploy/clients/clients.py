"""Writes with real clients to one node of a cluster and reads from another.

Starts three nodes on free ports below a temporary directory and ends them, by their own process
ids. Each check is a function; a failed one is told and the others go on.
"""

import collections
import contextlib
import gzip
import json
import pickle
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from datetime import datetime, timezone

import graphyte
import influxdb
import influxdb_client
import requests
import statsd
from datadog.dogstatsd import DogStatsd
from influxdb_client.client.write_api import SYNCHRONOUS

NODES = 3
PORTS = ("web", "push", "cluster", "graphite", "pickle", "statsd")
DEADLINE = 60


def free_ports(count):
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


class Node:
    def __init__(self, binary, directory, name, ports, join):
        self.ports = dict(zip(PORTS, ports))
        self.url = f"http://127.0.0.1:{self.ports['web']}"
        self.log = open(f"{directory}/{name}.log", "w")
        at = {key: f"127.0.0.1:{port}" for key, port in self.ports.items()}
        self.process = subprocess.Popen(
            [
                binary,
                f"--storage.tsdb.path={directory}/{name}",
                f"--web.listen-address={at['web']}",
                f"--push.listen-address={at['push']}",
                f"--cluster.listen-address={at['cluster']}",
                f"--cluster.advertise-address={at['cluster']}",
                f"--cluster.join={join}",
                f"--cluster.bootstrap-expect={NODES}",
                "--cluster.shards=4",
                f"--graphite.listen-address={at['graphite']}",
                f"--graphite.pickle-listen-address={at['pickle']}",
                f"--statsd.listen-address={at['statsd']}",
                "--statsd.flush-interval=1s",
                "--push.history-interval=2s",
            ],
            cwd=directory,
            stdout=self.log,
            stderr=self.log,
        )

    def query(self, query):
        answer = requests.get(f"{self.url}/api/v1/query", {"query": query}, timeout=10)
        answer.raise_for_status()
        result = answer.json()["data"]["result"]
        return sorted(float(one["value"][1]) for one in result)

    def ready(self):
        with contextlib.suppress(requests.RequestException):
            return requests.get(f"{self.url}/-/ready", timeout=2).status_code == 200
        return False

    def expect(self, query, *values):
        """Until the query has these values."""
        wait(f"{query} = {values}", lambda: self.query(query) == sorted(values), lambda: self.query(query))

    def kill(self):
        self.process.kill()
        self.process.wait()


def wait(what, look, seen=lambda: "nothing"):
    end = time.monotonic() + DEADLINE
    while not look():
        if time.monotonic() > end:
            raise AssertionError(f"no {what} within {DEADLINE} s, seen: {seen()}")
        time.sleep(0.2)


# --- the checks: each has the nodes, writes to one and reads from another ----------------------


def influx_v2(a, b, c):
    with influxdb_client.InfluxDBClient(a.url, token="t", org="o", enable_gzip=True) as client:
        assert client.ping()
        assert client.health().status == "pass"
        api = client.write_api(write_options=SYNCHRONOUS)
        point = influxdb_client.Point("v2 cpu").tag("host name", "a,b").field("usage", 0.5)
        point = point.field("cores", 8).field("ok", True).field("text", "x\ny").field("value", 3)
        api.write(bucket="bk", record=point.time(datetime.now(timezone.utc)))
        b.expect('v2_cpu_usage{host_name="a,b",db="bk"}', 0.5)
        b.expect("v2_cpu_cores", 8)
        b.expect("v2_cpu_ok", 1)
        b.expect("v2_cpu", 3)
        b.expect('{__name__=~"v2_cpu_text"}')
        try:
            api.write(bucket="bk", record=["v2good value=1", "v2bad"])
            raise AssertionError("a bad line was taken")
        except influxdb_client.rest.ApiException as error:
            assert error.status == 400, error
            assert json.loads(error.body)["line"] == 2, error.body
        b.expect("v2good", 1)


def influx_v1(a, b, c):
    port = b.ports["web"]
    client = influxdb.InfluxDBClient("127.0.0.1", port, database="tele", gzip=True)
    assert client.ping() == "1.8.10"
    points = [{"measurement": "v1", "tags": {"n": str(n)}, "fields": {"value": n}} for n in range(500)]
    assert client.write_points(points, batch_size=100, time_precision="ms")
    c.expect('count(v1{db="tele"})', 500)
    c.expect("sum(v1)", sum(range(500)))
    old = [{"measurement": "old", "time": 1, "fields": {"value": 1}}]
    try:
        client.write_points(old)
        raise AssertionError("a point of 1970 was taken")
    except influxdb.exceptions.InfluxDBClientError as error:
        assert error.code == 400 and "too old sample" in str(error), error
    under = influxdb.InfluxDBClient("127.0.0.1", port, path="influx", database="tele")
    under.create_database("tele")
    assert under.write_points([{"measurement": "v1path", "fields": {"value": 1}}])
    c.expect("v1path", 1)


def graphite(a, b, c):
    for protocol in ("tcp", "udp"):
        sender = graphyte.Sender("127.0.0.1", b.ports["graphite"], prefix="graphyte", protocol=protocol)
        sender.send(f"{protocol}.load-1", 1.5)
        sender.send(f"{protocol}.tagged", 2, tags={"rack": "a 1".replace(" ", "_"), "dc": "x"})
        sender.stop()
        c.expect(f"graphyte_{protocol}_load_1", 1.5)
        c.expect(f'graphyte_{protocol}_tagged{{rack="a_1",dc="x"}}', 2)


def graphite_pickle(a, b, c):
    with socket.create_connection(("127.0.0.1", c.ports["pickle"])) as connection:
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            points = [(f"pickled.p{protocol}.n{n}", (time.time(), n)) for n in range(50)]
            body = pickle.dumps(points, protocol=protocol)
            connection.sendall(len(body).to_bytes(4, "big") + body)
    names = '{__name__=~"pickled_.*"}'
    a.expect(f"count({names})", 50 * (pickle.HIGHEST_PROTOCOL + 1))
    a.expect(f"sum({names})", 1225 * (pickle.HIGHEST_PROTOCOL + 1))


def statsd_of_two_nodes(a, b, c):
    clients = [statsd.StatsClient("127.0.0.1", node.ports["statsd"], prefix="app") for node in (a, b)]
    tcp = statsd.TCPStatsClient("127.0.0.1", c.ports["statsd"], prefix="app")
    for _ in range(50):
        for client in clients:
            client.incr("hits", 2)
            client.timing("latency", 30)
    tcp.incr("hits", 7)
    tcp.close()
    clients[0].gauge("users", 12)
    # One series of the whole cluster with the sum of what all nodes got.
    for node in (a, b, c):
        node.expect('app_hits{job="statsd"}', 207)
        node.expect("app_latency_count", 100)
        node.expect('app_latency_bucket{le="0.05"}', 100)
        node.expect("app_users", 12)
    clients[0].gauge("users", -2, delta=True)
    b.expect("app_users", 10)


def dogstatsd(a, b, c):
    client = DogStatsd("127.0.0.1", c.ports["statsd"], constant_tags=["env:test"], disable_telemetry=True)
    client.increment("dog.hits", 3, tags=["path:/a"])
    client.gauge("dog.temp", 21.5)
    client.histogram("dog.size", 2)
    client.distribution("dog.dist", 0.2)
    client.flush()
    a.expect('dog_hits{env="test",path="/a"}', 3)
    a.expect('dog_temp{env="test"}', 21.5)
    a.expect("dog_size_sum", 2)
    a.expect('dog_dist_bucket{le="0.25"}', 1)


def json_lines(a, b, c):
    now = int(time.time() * 1000)
    times = [now - 1000 * n for n in range(5, 0, -1)]
    values = [0.1, None, "Infinity", -1e-300, "NaN"]
    lines = [
        {"metric": {"__name__": "json", "i": str(i)}, "values": values, "timestamps": times}
        for i in range(1000)
    ]
    text = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)
    body = gzip.compress(text.encode())
    headers = {"content-encoding": "gzip"}
    answer = requests.post(f"{a.url}/api/v1/import", body, headers=headers, timeout=30)
    assert answer.status_code == 204, answer.text
    export = f"{b.url}/api/v1/export"
    got = requests.get(export, {"match[]": "json"}, timeout=30)
    assert got.status_code == 200, got.text
    by_series = lambda line: int(line["metric"]["i"])
    assert sorted(map(json.loads, got.text.splitlines()), key=by_series) == lines
    # What came out goes in again, and changes nothing.
    again = requests.post(f"{c.url}/api/v1/import", got.text, timeout=30)
    assert again.status_code == 204, again.text


def exposition(a, b, c):
    now = int(time.time() * 1000)
    path = f"{b.url}/api/v1/import/prometheus/metrics/job/batch?extra_label=dc=x"
    answer = requests.post(path, f'done{{step="1"}} 5 {now}\nbad{{\nlast 6 {now}\n', timeout=10)
    assert answer.status_code == 400 and "line 2" in answer.text, answer.text
    c.expect('done{step="1",job="batch",dc="x"}', 5)
    c.expect('last{job="batch"}', 6)


def without_a_majority(a, b, c):
    """A node that cannot commit says so, at once or in time, and what is sent again counts once."""
    now, rows = int(time.time() * 1000), 1000
    bodies = [
        "".join(f"load,body={body},row={row} value={row} {now}\n" for row in range(rows))
        for body in range(12)
    ]
    answers = []

    def send(body):
        url = f"{a.url}/write?precision=ms"
        answers.append(requests.post(url, bodies[body], timeout=120))

    def send_all():
        answers.clear()
        threads = [threading.Thread(target=send, args=(body,)) for body in range(len(bodies))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return collections.Counter(answer.status_code for answer in answers)

    for node in (b, c):
        node.process.send_signal(signal.SIGSTOP)
    try:
        codes = send_all()
    finally:
        for node in (b, c):
            node.process.send_signal(signal.SIGCONT)
    assert set(codes) <= {429, 503}, codes
    assert all(answer.headers.get("retry-after") for answer in answers)
    wait("ready cluster", lambda: all(node.ready() for node in (a, b, c)))
    end = time.monotonic() + DEADLINE
    while set(codes) != {204} and time.monotonic() < end:
        codes = send_all()
        assert set(codes) <= {204, 429, 503}, codes
        time.sleep(1)
    assert set(codes) == {204}, codes
    b.expect("count(load)", len(bodies) * rows)
    b.expect("sum(load)", len(bodies) * sum(range(rows)))


def survives(a, b, c):
    """What was acknowledged is there when a node is not."""
    c.kill()
    for node in (a, b):
        node.expect('v2_cpu_usage{host_name="a,b"}', 0.5)
        node.expect("sum(v1)", sum(range(500)))
        node.expect('app_hits{job="statsd"}', 207)
    client = statsd.StatsClient("127.0.0.1", b.ports["statsd"], prefix="app")
    client.incr("hits", 3)
    a.expect('app_hits{job="statsd"}', 210)


CHECKS = (
    influx_v2,
    influx_v1,
    graphite,
    graphite_pickle,
    statsd_of_two_nodes,
    dogstatsd,
    json_lines,
    exposition,
    without_a_majority,
    survives,
)


def main(binary):
    failed = 0
    with tempfile.TemporaryDirectory() as directory:
        ports = free_ports(NODES * len(PORTS))
        chunks = [ports[i : i + len(PORTS)] for i in range(0, len(ports), len(PORTS))]
        join = ",".join(f"127.0.0.1:{chunk[PORTS.index('cluster')]}" for chunk in chunks)
        nodes = [Node(binary, directory, f"node-{i}", chunk, join) for i, chunk in enumerate(chunks)]
        try:
            wait("ready cluster", lambda: all(node.ready() for node in nodes))
            for check in CHECKS:
                begin = time.monotonic()
                try:
                    check(*nodes)
                    verdict = "ok"
                except Exception:  # told, and counted: the other checks still say something
                    traceback.print_exc()
                    verdict, failed = "FAILED", failed + 1
                print(f"{check.__name__:<22} {verdict:<7} {time.monotonic() - begin:.1f} s", flush=True)
        finally:
            for node in nodes:
                node.kill()
    print(f"{len(CHECKS) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
