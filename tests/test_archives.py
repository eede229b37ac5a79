"""Archives from outside and downloads: what is harmless is read, and everything else is refused by name."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from kshot.data import archives
from kshot.data.pickles import load_pickle
from kshot.errors import DataError


def make_zip(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def make_tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def test_members_are_read(tmp_path: Path) -> None:
    members = {"a/b.txt": b"one", "c.txt": b"two"}
    path = make_zip(tmp_path / "x.zip", members)
    assert archives.zip_members(path) == list(members)
    with archives.open_zip(path) as read:
        assert read("a/b.txt") == b"one"
    with archives.open_tar(make_tar(tmp_path / "x.tar.gz", members), ["c.txt"]) as open_member:
        assert open_member("c.txt").read() == b"two"


@pytest.mark.parametrize("name", ["../evil.png", "a/../../evil.png", "/etc/evil.png", "C:/evil.png", "..\\evil.png"])
def test_a_member_that_points_outside_is_refused(tmp_path: Path, name: str) -> None:
    path = make_zip(tmp_path / "x.zip", {name: b"evil"})
    with pytest.raises(DataError, match="points outside"):
        archives.zip_members(path)
    with pytest.raises(DataError, match="points outside"), archives.open_zip(path):
        pass
    tar = make_tar(tmp_path / "x.tar.gz", {name: b"evil", "c.txt": b"two"})
    with pytest.raises(DataError, match="points outside"), archives.open_tar(tar, ["c.txt"]):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.tar.gz", "x.zip"]


def test_truncated_archives_are_refused_by_name(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).bytes(50_000)
    for path in (make_zip(tmp_path / "x.zip", {"a": noise}), make_tar(tmp_path / "x.tar.gz", {"a": noise})):
        path.write_bytes(path.read_bytes()[:30_000])
    with pytest.raises(DataError, match=r"x.zip cannot be read .*get it again"):
        archives.zip_members(tmp_path / "x.zip")
    with (
        pytest.raises(DataError, match=r"x.tar.gz cannot be read .*get it again"),
        archives.open_tar(tmp_path / "x.tar.gz", ["a"]),
    ):
        pass


def test_a_zip_member_with_a_flipped_bit_is_refused(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "x.zip", {"a": np.random.default_rng(0).bytes(5000)})
    content = bytearray(path.read_bytes())
    content[2000] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"x.zip cannot be read"), archives.open_zip(path) as read:
        read("a")


def test_a_member_that_unpacks_to_more_than_its_limit_is_refused(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "bomb.zip", {"a.png": bytes(archives.LARGEST_MEMBER + 1), "b": b"fine"})
    assert path.stat().st_size < 1 << 17
    with archives.open_zip(path) as read:
        assert read("b") == b"fine"
        with pytest.raises(DataError, match=r"a.png in .*bomb.zip has more than 64 MiB"):
            read("a.png")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes")
def test_pipes_are_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for use in (load_pickle, archives.zip_members, lambda path: archives.refuse_other_checksum(path, "")):
        with pytest.raises((DataError, OSError), match="no regular file"):
            use(tmp_path / "pipe")
    with pytest.raises(DataError, match="no regular file"), archives.open_tar(tmp_path / "pipe", []):
        pass


def test_a_tar_without_the_member_is_refused(tmp_path: Path) -> None:
    path = make_tar(tmp_path / "x.tar.gz", {"a": b"1"})
    with pytest.raises(DataError, match="does not hold b"), archives.open_tar(path, ["a", "b"]):
        pass


class Publisher(BaseHTTPRequestHandler):
    """Serves one file; cuts the connection after `cut` bytes while that is positive."""

    content: ClassVar[bytes] = np.random.default_rng(0).bytes(600_000)
    cut: ClassVar[int] = 0
    ranges: ClassVar[list[str | None]] = []

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        Publisher.ranges.append(asked)
        first = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
        if first >= len(self.content):
            self.send_error(416)
            return
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(len(self.content) - first))
        self.end_headers()
        last = first + Publisher.cut if Publisher.cut else len(self.content)
        self.wfile.write(self.content[first:last])

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def url() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Publisher)
    Publisher.cut, Publisher.ranges = 0, []
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/file.tar.gz"
    server.shutdown()
    server.server_close()


MD5 = hashlib.md5(Publisher.content).hexdigest()


def test_a_download_is_checked_and_not_repeated(url: str, tmp_path: Path) -> None:
    target = tmp_path / "downloads" / "file.tar.gz"
    for _ in range(2):
        assert archives.download(url, target, md5=MD5).read_bytes() == Publisher.content
    assert Publisher.ranges == [None]


def test_an_interrupted_download_is_continued(url: str, tmp_path: Path) -> None:
    target = tmp_path / "file.tar.gz"
    Publisher.cut = 250_000
    with pytest.raises(DataError, match=r"ended after 250000 of 600000 bytes.*try again to continue"):
        archives.download(url, target, md5=MD5)
    assert not target.exists()
    Publisher.cut = 0
    assert archives.download(url, target, md5=MD5).read_bytes() == Publisher.content
    assert Publisher.ranges == [None, "bytes=250000-"]
    assert [path.name for path in tmp_path.iterdir()] == ["file.tar.gz"]


def test_a_download_that_was_complete_but_not_renamed_is_used(url: str, tmp_path: Path) -> None:
    (tmp_path / "file.tar.gz.part").write_bytes(Publisher.content)
    assert archives.download(url, tmp_path / "file.tar.gz", md5=MD5).read_bytes() == Publisher.content


def test_a_wrong_checksum_is_refused_and_nothing_is_kept(url: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"has the MD5 checksum {MD5}, and the publisher's file has 0123"):
        archives.download(url, tmp_path / "file.tar.gz", md5="0123")
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_does_not_answer_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"downloading http://127.0.0.1:9/x failed .*--source"):
        archives.download("http://127.0.0.1:9/x", tmp_path / "x", md5=MD5)
