"""Published archives: found on disk or downloaded, checked, read without unpacking."""

from __future__ import annotations

import dataclasses
import io
import os
import pathlib
import sys
import tarfile
import zlib
from typing import Any

import pooch

from sphemb._checks import InputError
from sphemb.data.files._images import FileError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Publication:
    """A published tar archive."""

    what: str  # its name, for messages
    url: str
    algorithm: str  # of the digest, as `hashlib` calls it
    digest: str  # of the whole archive, in hexadecimal
    root: str  # the folder inside that holds the data
    landmark: str  # a file or folder in it by which an unpacked one is recognized
    folders: tuple[str, ...]  # the folders in it that are read

    @property
    def filename(self) -> str:
        """The archive's file name."""
        return self.url.rsplit("/", 1)[1]


class FolderFiles:
    """The files of a folder, by their path in it."""

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self._root = pathlib.Path(root)

    def where(self, name: str) -> str:
        """Names a file, for messages."""
        return str(self._root / name)

    def names(self, folder: str, *, suffix: str) -> list[str]:
        """Lists the files of a folder, sorted, without the suffix."""
        files = (self._root / folder).glob(f"*{suffix}")
        return sorted(file.name.removesuffix(suffix) for file in files)

    def read(self, name: str) -> bytes:
        """Reads a file; raises InputError where it is missing."""
        if _leads_out(name):
            raise InputError(f"{name!r} must be a file in {self._root}")
        try:
            return (self._root / name).read_bytes()
        except (OSError, ValueError) as error:  # ValueError: an impossible name
            reason = getattr(error, "strerror", None) or str(error)
            raise FileError(f"{self.where(name)} cannot be read: {reason}") from error


class TarFiles:
    """The files of a published archive; content of a compressed one is in memory."""

    def __init__(self, path: pathlib.Path, publication: Publication) -> None:
        self._path, self._root = path, publication.root
        self._members: dict[str, tarfile.TarInfo | bytes] = {}
        wanted = tuple(f"{self._root}/{folder}/" for folder in publication.folders)
        try:
            with tarfile.open(self._path) as archive:
                plain = isinstance(archive.fileobj, io.BufferedReader)
                for member in archive:
                    if _leads_out(member.name):
                        text = f"archive {self._path} holds {member.name!r}, which"
                        raise InputError(f"{text} leads out of it: another archive")
                    name = member.name.removeprefix("./")
                    if not member.isfile() or not name.startswith(wanted):
                        continue
                    file = None if plain else archive.extractfile(member)
                    held = member if file is None else file.read()
                    self._members[name.removeprefix(f"{self._root}/")] = held
        except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
            reason = " ".join(str(error).split())
            raise InputError(f"archive {path} cannot be read: {reason}") from error

    def where(self, name: str) -> str:
        """Names a file, for messages."""
        return f"{self._root}/{name} in {self._path}"

    def names(self, folder: str, *, suffix: str) -> list[str]:
        """Lists the files of a folder, sorted, without the suffix."""
        inside = [
            name.removeprefix(f"{folder}/").removesuffix(suffix)
            for name in self._members
            if name.startswith(f"{folder}/") and name.endswith(suffix)
        ]
        return sorted(name for name in inside if "/" not in name)

    def read(self, name: str) -> bytes:
        """Reads a file; raises InputError where it is missing."""
        held = self._members.get(name)
        if held is None:
            raise InputError(f"{self.where(name)} cannot be read: no such file")
        if isinstance(held, bytes):
            return held
        with self._path.open("rb") as archive:
            archive.seek(held.offset_data)
            return archive.read(held.size)


Files = FolderFiles | TarFiles


def find_unpacked(
    publication: Publication, folder: pathlib.Path
) -> pathlib.Path | None:
    """Finds unpacked files in a folder, or in a part of the archive's path in it."""
    parts = pathlib.PurePosixPath(publication.root).parts
    inside = (folder.joinpath(*parts[start:]) for start in range(len(parts) + 1))
    return next((p for p in inside if (p / publication.landmark).exists()), None)


def open_publication(
    publication: Publication, *, manual_dir: str | None, data_dir: str
) -> Files:
    """Finds published files in ``manual_dir``, packed or unpacked, or downloads them.

    By default it is ``downloads/manual`` in ``data_dir``, to which a missing archive is
    downloaded. An archive of another digest is refused.
    """
    default = pathlib.Path(data_dir) / "downloads" / "manual"
    folder = pathlib.Path(manual_dir).expanduser() if manual_dir else default
    unpacked = find_unpacked(publication, folder)
    if unpacked is not None:
        return FolderFiles(unpacked)
    path = folder / publication.filename
    if path.is_file():
        found = pooch.file_hash(str(path), alg=publication.algorithm)
        if found != publication.digest:
            raise _another(publication, path, f"got {found}")
    elif manual_dir:
        text = f"put {publication.filename} from {publication.url} there, or the folder"
        text = f"{publication.what}: {text} {publication.root} that it unpacks to"
        raise InputError(f"manual_dir {folder} must hold {text}")
    else:
        _download(publication, path)
    return TarFiles(path, publication)


def _download(publication: Publication, path: pathlib.Path) -> None:
    pooch.get_logger().setLevel("WARNING")
    downloader: Any = pooch.HTTPDownloader(
        progressbar=sys.stderr.isatty(), chunk_size=2**20, timeout=60
    )
    digest = f"{publication.algorithm}:{publication.digest}"
    where = {"fname": path.name, "path": path.parent, "downloader": downloader}
    try:
        pooch.retrieve(publication.url, digest, **where)
    except OSError as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(
            f"{publication.what} cannot be downloaded from {publication.url} to {path} "
            f"({reason}): fetch {publication.filename} some other way, put it in a "
            "folder, unpacked or not, and name the folder in manual_dir"
        ) from error
    except ValueError as error:  # of pooch: another digest
        reason = " ".join(str(error).split())
        raise _another(publication, publication.url, reason) from error


def _another(publication: Publication, origin: object, reason: str) -> InputError:
    return InputError(
        f"{origin} must be the published {publication.what} with "
        f"{publication.algorithm} {publication.digest}, {reason}: damaged, cut short, "
        "or another version"
    )


def _leads_out(name: str) -> bool:
    path = pathlib.PurePosixPath(name.replace("\\", "/"))
    return path.is_absolute() or ".." in path.parts
