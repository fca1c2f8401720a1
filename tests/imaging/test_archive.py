"""The safe extractor: honest archives unpack, every trick leaves the folder untouched."""

from __future__ import annotations

import errno
import io
import tarfile
import zipfile

import pytest

from medmargin.errors import BudgetError, DataError
from medmargin.imaging import extract

CONTENT = {"set/a.txt": b"first", "set/deep/b.txt": b"second" * 1000}


def save_zip(path, entries: dict[str, bytes], *, mode: int = 0):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries.items():
            entry = zipfile.ZipInfo(name)
            entry.external_attr = mode << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, data)
    return path


def save_tar(path, entries: dict[str, bytes], *, kind: bytes = tarfile.REGTYPE, link: str = ""):
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
        for name, data in entries.items():
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname, entry.size = kind, link, len(data) if kind == tarfile.REGTYPE else 0
            archive.addfile(entry, io.BytesIO(data))
    return path


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz"])
def test_honest_archives_unpack(tmp_path, name):
    archive = (save_zip if name.endswith("zip") else save_tar)(tmp_path / name, CONTENT)
    folder = tmp_path / "out" / "here"
    assert extract(archive, folder) == [folder / "set/a.txt", folder / "set/deep/b.txt"]
    assert (folder / "set/deep/b.txt").read_bytes() == CONTENT["set/deep/b.txt"]
    assert [path.name for path in folder.iterdir()] == ["set"]


@pytest.mark.parametrize("save", [save_zip, save_tar])
@pytest.mark.parametrize("name", ["../x", "set/../../x", "/etc/x", "..\\x", "C:\\x", "C:/x"])
def test_row_38_entries_that_lead_outside_are_refused_and_nothing_is_unpacked(tmp_path, save, name):
    archive = save(tmp_path / ("a.zip" if save is save_zip else "a.tar"), {"good.txt": b"1", name: b"2"})
    with pytest.raises(DataError, match="nothing was unpacked"):
        extract(archive, tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {archive.name}


def test_row_38_links_are_refused(tmp_path):
    archives = [
        save_zip(tmp_path / "a.zip", {"link": b"/etc/passwd"}, mode=0o120777),
        save_tar(tmp_path / "b.tar", {"link": b""}, kind=tarfile.SYMTYPE, link="/etc/passwd"),
        save_tar(tmp_path / "c.tar", {"link": b""}, kind=tarfile.LNKTYPE, link="../x"),
        save_tar(tmp_path / "d.tar", {"device": b""}, kind=tarfile.CHRTYPE),
        save_tar(tmp_path / "e.tar", {"pipe": b""}, kind=tarfile.FIFOTYPE),
    ]
    for archive in archives:
        with pytest.raises(DataError, match="no plain file"):
            extract(archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_row_36_bombs_are_refused(tmp_path):
    zeros = b"\0" * (1 << 20)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive, archive.open("x", "w") as member:
        for _ in range(300):
            member.write(zeros)
    with tarfile.open(tmp_path / "b.tar.gz", "w:gz") as archive:
        entry = tarfile.TarInfo("x")
        entry.size = 300 << 20
        archive.addfile(entry, _Zeros(entry.size))
    for name in ("a.zip", "b.tar.gz"):
        with pytest.raises(DataError, match="bomb"):
            extract(tmp_path / name, tmp_path / "out")
    assert not (tmp_path / "out").exists()


class _Zeros(io.RawIOBase):
    def __init__(self, size: int) -> None:
        self.left = size

    def read(self, size: int = -1) -> bytes:
        size = min(size, self.left)
        self.left -= size
        return bytes(size)


def test_the_limit_counts_all_entries(tmp_path):
    archive = save_zip(tmp_path / "a.zip", {"a": b"x" * 600, "b": b"y" * 600})
    with pytest.raises(DataError, match="more than the"):
        extract(archive, tmp_path / "out", largest=1000)
    assert len(extract(archive, tmp_path / "out", largest=1200)) == 2


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz"])
def test_row_34_damaged_archives_leave_nothing_behind(tmp_path, name):
    archive = (save_zip if name.endswith("zip") else save_tar)(tmp_path / name, {"set/a": bytes(range(256)) * 40})
    data = bytearray(archive.read_bytes())
    data[len(data) // 4] ^= 255
    archive.write_bytes(data)
    with pytest.raises(DataError, match="damaged"):
        extract(archive, tmp_path / "out")
    assert not list((tmp_path / "out").glob("*")) if (tmp_path / "out").exists() else True


def test_row_37_what_is_no_archive_is_refused(tmp_path):
    (tmp_path / "a.zip").write_text("no archive")
    with pytest.raises(DataError, match="is no archive"):
        extract(tmp_path / "a.zip", tmp_path / "out")
    with pytest.raises(DataError, match="no such file"):
        extract(tmp_path / "gone.zip", tmp_path / "out")
    with pytest.raises(DataError, match="folder"):
        extract(tmp_path, tmp_path / "out")


def test_nothing_is_overwritten(tmp_path):
    archive = save_zip(tmp_path / "a.zip", CONTENT)
    (tmp_path / "out/set").mkdir(parents=True)
    (tmp_path / "out/set/a.txt").write_bytes(b"mine")
    with pytest.raises(DataError, match="already holds set"):
        extract(archive, tmp_path / "out")
    assert (tmp_path / "out/set/a.txt").read_bytes() == b"mine"
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["set"]


def test_row_40_a_full_disk_is_said_and_leaves_nothing(tmp_path, monkeypatch):
    archive = save_zip(tmp_path / "a.zip", CONTENT)

    def full(*_args, **_options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(zipfile.ZipFile, "extractall", full)
    with pytest.raises(BudgetError, match="disk is full"):
        extract(archive, tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())
