"""A quorate or a Prometheus on a port of its own, for the checks that ask it by HTTP."""

import os
import socket
import subprocess
import time
import urllib.request


class Server:
    """Runs with its data below `folder`, which is made; ready when it is there. `url` is where it listens."""

    def __init__(self, binary, folder, config, flags):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.url = "http://127.0.0.1:%d" % free.getsockname()[1]
        os.makedirs(folder)
        with open(os.path.join(folder, "c.yml"), "w") as file:
            file.write(config)
        command = [binary, "--config.file=" + os.path.join(folder, "c.yml"), "--storage.tsdb.path=" + os.path.join(folder, "data"),
                   "--web.listen-address=" + self.url[len("http://"):]] + flags
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
        self.log.close()
