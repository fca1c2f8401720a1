"""Downloads: verified, whole or not at all, encrypted. The server runs on this machine."""

from __future__ import annotations

import hashlib
import http.server
import io
import tarfile
import threading
from dataclasses import replace
from functools import partial

import pytest

from medmargin.datasets.get import SOURCES, Source, get_dataset
from medmargin.errors import ConfigError, DataError


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="module")
def publish(tmp_path_factory):
    """Serve archives on the loopback; the fixture makes one of the entries given and returns its source."""
    served = tmp_path_factory.mktemp("served")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=served))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()

    def make(entries):
        with tarfile.open(served / "Toy.tar", "w") as archive:
            for name, content in entries.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
        checksum = hashlib.sha256((served / "Toy.tar").read_bytes()).hexdigest()
        return Source(f"http://127.0.0.1:{server.server_port}/Toy.tar", "sha256", checksum, "Task01_Toy", "CC0")

    yield make
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def published(publish):
    """The source of a sound archive with two files."""
    return publish({"Task01_Toy/dataset.json": b"{}", "Task01_Toy/imagesTr/a.nii.gz": b"x" * 3_000_000})


def test_a_verified_archive_is_unpacked_with_progress(published, tmp_path):
    calls = []
    folder = get_dataset(
        "toy", tmp_path / "data", sources={"toy": published}, progress=lambda done, total: calls.append((done, total))
    )
    assert folder == tmp_path / "data/Task01_Toy"
    assert (folder / "dataset.json").read_text() == "{}"
    assert (folder / "imagesTr/a.nii.gz").stat().st_size == 3_000_000
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["Task01_Toy"]
    assert len(calls) >= 3
    assert calls[-1][0] == calls[-1][1]
    assert calls == sorted(calls)


def test_another_checksum_unpacks_nothing(published, tmp_path):
    changed = replace(published, checksum="0" * 64)
    with pytest.raises(DataError, match=rf"is {published.checksum}, published is 0000"):
        get_dataset("toy", tmp_path / "data", sources={"toy": changed})
    assert list((tmp_path / "data").iterdir()) == []


def test_an_absent_file_or_server_is_said_with_the_way_round(published, tmp_path):
    for url in (published.url + ".gone", "http://127.0.0.1:9/Toy.tar"):
        with pytest.raises(DataError, match=r"cannot be downloaded.*fetch and unpack the archive"):
            get_dataset("toy", tmp_path / "data", sources={"toy": replace(published, url=url)})
    assert list((tmp_path / "data").iterdir()) == []


def test_an_archive_without_the_promised_folder_is_refused(published, tmp_path):
    with pytest.raises(DataError, match="holds no folder 'Task02_Other'"):
        get_dataset("toy", tmp_path / "data", sources={"toy": replace(published, folder="Task02_Other")})
    assert list((tmp_path / "data").iterdir()) == []


@pytest.mark.parametrize("entry", ["../escaped", "/tmp/medmargin-escaped"])
def test_row_38_an_archive_that_leads_outside_unpacks_nothing(publish, tmp_path, entry):
    source = publish({"Task01_Toy/dataset.json": b"{}", entry: b"x"})
    with pytest.raises(DataError, match="leads outside"):
        get_dataset("toy", tmp_path / "data", sources={"toy": source})
    assert [path.name for path in tmp_path.rglob("*")] == ["data"]


@pytest.mark.parametrize("url", ["http://example.org/a.tar", "ftp://example.org/a.tar", "file://localhost/etc/passwd"])
def test_only_encrypted_addresses_are_followed(published, tmp_path, url):
    with pytest.raises(ConfigError, match="over https only"):
        get_dataset("toy", tmp_path / "data", sources={"toy": replace(published, url=url)})


def test_unknown_names_list_the_known_ones(tmp_path):
    with pytest.raises(ConfigError, match="unknown data set 'liver'; can get: hippocampus"):
        get_dataset("liver", tmp_path)


def test_an_existing_folder_is_not_overwritten(published, tmp_path):
    get_dataset("toy", tmp_path, sources={"toy": published})
    with pytest.raises(ConfigError, match="exists already"):
        get_dataset("toy", tmp_path, sources={"toy": published})


def test_every_published_source_is_encrypted_and_has_a_checksum():
    for source in SOURCES.values():
        assert source.url.startswith("https://")
        assert len(source.checksum) == hashlib.new(source.algorithm, usedforsecurity=False).digest_size * 2
