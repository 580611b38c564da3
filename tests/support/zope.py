"""A real Zope (WSGI) instance in a process of its own, and a small HTTP client for its management pages."""

import base64
import re
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Self

PROGRAMS = Path(sys.executable).parent
START_DEADLINE_S = 60.0


class Zope:
    """One instance, made by `mkwsgiinstance`, its database section replaced by *storage_section*.

    As a context manager: started and answering inside the block, stopped after it.
    """

    def __init__(self, directory: Path, storage_section: str, port: int) -> None:
        self.directory = directory
        self.url = f"http://127.0.0.1:{port}"
        command = [str(PROGRAMS / "mkwsgiinstance"), "-d", str(directory), "-u", "admin:secret"]
        subprocess.run(command, check=True, timeout=60, stdin=subprocess.DEVNULL)
        conf = directory / "etc" / "zope.conf"
        text, count = re.subn(
            r"<filestorage>.*?</filestorage>", lambda _: storage_section, conf.read_text(), flags=re.DOTALL
        )
        assert count == 1, "mkwsgiinstance writes another zope.conf than this expects"
        conf.write_text("%import neo_client\n" + text)
        ini = directory / "etc" / "zope.ini"
        ini.write_text(ini.read_text().replace("port = 8080", f"port = {port}"))
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        command = [str(PROGRAMS / "runwsgi"), str(self.directory / "etc" / "zope.ini")]
        with (self.directory / "zope.log").open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        deadline = time.monotonic() + START_DEADLINE_S
        while True:
            assert self._process.poll() is None, f"Zope has stopped: {self.log()}"
            assert time.monotonic() < deadline, f"Zope does not answer: {self.log()}"
            try:
                self.get("/")
            except OSError:
                time.sleep(0.1)  # nothing to wait on: another program is starting
            else:
                return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process is not None
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(5)
            raise

    def log(self) -> str:
        """Return what it has printed."""
        return (self.directory / "zope.log").read_text(errors="replace")[-4000:]

    def get(self, path: str, **query: str) -> str:
        """GET a page as the manager."""
        return self._open(path + ("?" + urllib.parse.urlencode(query) if query else ""), None)

    def post(self, path: str, fields: list[tuple[str, str]]) -> str:
        """POST a form as the manager; redirections are followed."""
        return self._open(path, urllib.parse.urlencode(fields).encode())

    def _open(self, path: str, body: bytes | None) -> str:
        request = urllib.request.Request(self.url + path, body)
        request.add_header("Authorization", "Basic " + base64.b64encode(b"admin:secret").decode())
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                page: str = answer.read().decode()
                return page
        except urllib.error.HTTPError as error:
            raise AssertionError(
                f"{path}: {error.code} {error.read().decode(errors='replace')[-1500:]}\n{self.log()}"
            ) from error
