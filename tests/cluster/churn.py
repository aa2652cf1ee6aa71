"""Pods that start one after the other, each of which shows whether it was redirected, while something else happens."""

import contextlib
import threading
import time

import pods


class Churn:
    """Clients of a plain server, created in a thread of its own."""

    def __init__(self, test, urls, interval=1):
        self._test, self._urls, self._interval = test, urls, interval
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._create)
        self.names = []
        self.error = None

    def _create(self):
        try:
            while not self._end.is_set():
                name = f"churn-{len(self.names)}"
                self._test.create(pods.client(name, self._urls[len(self.names) % 2]))
                self.names.append(name)
                time.sleep(self._interval)
        except Exception as error:
            self.error = error

    def wait_for(self, count):
        """Until so many more pods were created."""
        target = len(self.names) + count
        while len(self.names) < target and not self.error:
            time.sleep(0.1)

    def stop(self):
        self._end.set()
        self._thread.join()

    def start(self):
        self._thread.start()


@contextlib.contextmanager
def churn(test):
    """Pods start until the block ends; then all of them must have been redirected."""
    running = Churn(test, test.start_plain_server())
    running.start()
    try:
        running.wait_for(3)
        yield running
        running.wait_for(3)
    finally:
        running.stop()
    if running.error:
        raise running.error
    # A kubelet that ends between creating and starting a container does not start it later, and its log is empty.
    ran = [name for name in running.names if test.finish(name) != ("Failed", "")]
    test.assertGreater(len(ran), len(running.names) / 2)
    for name in ran:
        test.assert_redirected(name)
