"""A DICOM archive behind DICOMweb (QIDO-RS, WADO-RS, STOW-RS), with one clear line for whatever goes wrong there."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import requests
from monailabel.datastore.dicom import DICOMwebClientX

from grn_monai.errors import InputError

__all__ = ["Archive", "ArchiveError", "Series", "check_uid"]

logger = logging.getLogger(__name__)

Prefixes = tuple[str | None, str | None, str | None]

_TIMEOUT = (5.0, 120.0)  # seconds to connect, and between two pieces of an answer
_PAGE = 500
_MOST_PAGES = 1000
_UID = re.compile(r"(?=.{1,64}\Z)[0-9]+(\.[0-9]+)*")


class ArchiveError(InputError):
    """The archive did not answer, or refused; nothing is wrong with a single scan."""


class Series(NamedTuple):
    """What a search tells of one series.

    Attributes:
        uid: Series Instance UID.
        study: Study Instance UID.
        modality: such as "US".
        instances: number of its instances; 0: the archive does not tell.
        subject: a pseudonym, the same for all series of one Patient ID; "": unknown.
    """

    uid: str
    study: str
    modality: str
    instances: int
    subject: str


class _Session(requests.Session):
    """A session that never waits for ever, and leaves wildcards as they are: Orthanc knows no ``%2A``."""

    def request(self, method: str, url: str, **kwargs: Any) -> Any:
        kwargs.setdefault("timeout", _TIMEOUT)
        path, mark, query = url.partition("?")
        return super().request(method, path + mark + query.replace("%2A", "*"), **kwargs)


def check_uid(uid: Any, url: str) -> str:
    """A UID as text; it becomes the name of a file, so that anything else could leave the cache.

    Raises:
        ArchiveError: it is none (DICOM PS3.5, 9.1; leading zeros pass).
    """
    text = str(uid)
    if not _UID.fullmatch(text):
        mend = "Look into the data of the DICOM server: UIDs are numbers with dots, at most 64 characters."
        raise ArchiveError(url, f"the UID {text[:100]!r}", "a DICOM UID", mend)
    return text


def _value(item: Mapping[str, Any], tag: str) -> str:
    values = item.get(tag, {}).get("Value") or [""]
    return str(values[0])


def _subject(patient: str) -> str:
    return hashlib.sha256(patient.encode()).hexdigest()[:12] if patient else ""


class Archive:
    """One DICOMweb service.

    Args:
        url: its root, such as ``http://127.0.0.1:8042/dicom-web``.
        user: name and password for HTTP basic authentication.
        prefixes: what follows the root for QIDO, WADO and STOW, where they differ.
    """

    def __init__(self, url: str, user: tuple[str, str] | None = None, prefixes: Prefixes = (None, None, None)) -> None:
        session = _Session()
        session.auth = user
        qido, wado, stow = (prefix or None for prefix in prefixes)
        try:
            self.client = DICOMwebClientX(
                url=url, session=session, qido_url_prefix=qido, wado_url_prefix=wado, stow_url_prefix=stow
            )
        except ValueError as error:
            mend = "Give it as --studies http://HOST:PORT/dicom-web."
            raise ArchiveError(url, str(error), "the root of a DICOMweb service", mend) from error
        # Its own retries take half a minute to tell that nobody answers.
        self.client.set_http_retry_params(retry=False)
        self.url = url

    @contextlib.contextmanager
    def _asking(self) -> Iterator[None]:
        expected = "a DICOMweb service"
        try:
            yield
        except InputError:
            raise
        except requests.HTTPError as error:
            code = error.response.status_code
            mend = "Look into the log of the DICOM server."
            if code in (401, 403):
                mend = "Set MONAI_LABEL_DATASTORE_USERNAME and MONAI_LABEL_DATASTORE_PASSWORD to an account that may."
            elif code == 404:
                mend = "Check the address; Orthanc's is http://HOST:8042/dicom-web."
            found = f"a refusal ({code} {error.response.reason})"
            raise ArchiveError(self.url, found, expected, mend) from error
        except requests.Timeout as error:
            found = f"no answer within {_TIMEOUT[1]:g} s"
            raise ArchiveError(self.url, found, expected, "Try again when the server is less busy.") from error
        except (requests.ConnectionError, requests.exceptions.ChunkedEncodingError) as error:
            mend = "Start the DICOM server, or correct the address."
            raise ArchiveError(self.url, "no answer (no connection)", expected, mend) from error
        except (ValueError, KeyError, TypeError, AttributeError, requests.RequestException) as error:
            found = f"an answer that is not DICOMweb ({type(error).__name__})"
            raise ArchiveError(
                self.url, found, expected, "Check the address and the server's DICOMweb plugin."
            ) from error

    def find(self, filters: Mapping[str, Any]) -> list[Series]:
        """All series that a search finds, page by page.

        Args:
            filters: DICOM keyword to value; ``*`` and ``?`` match any text and any letter.

        Raises:
            ArchiveError: it does not answer, or refuses.
        """
        found: dict[str, Series] = {}
        with self._asking():
            for _ in range(_MOST_PAGES):
                page = self.client.search_for_series(
                    search_filters=dict(filters), fields=["PatientID"], limit=_PAGE, offset=len(found)
                )
                listed = [
                    Series(
                        _value(item, "0020000E"),
                        _value(item, "0020000D"),
                        _value(item, "00080060"),
                        int(_value(item, "00201209") or 0),
                        _subject(_value(item, "00100020")),
                    )
                    for item in page
                ]
                fresh = {series.uid: series for series in listed if series.uid not in found}
                found |= fresh
                # An archive that knows no offset sends the same page again, and that ends it too.
                if not fresh or len(page) < _PAGE:
                    break
        return [series for series in found.values() if self._well_named(series)]

    def _well_named(self, series: Series) -> bool:
        try:
            check_uid(series.uid, self.url)
            check_uid(series.study, self.url)
        except ArchiveError as error:
            logger.warning("a series is left out: %s", error)
            return False
        return True

    def kind(self, series: Series) -> str:
        """SOP Class UID of one instance of a series; "": it has none."""
        with self._asking():
            first = self.client.search_for_instances(series.study, series.uid, limit=1)
            return _value(first[0], "00080016") if first else ""

    def headers(self, series: Series) -> list[Any]:
        """The data sets of a series without bulk data."""
        from pydicom import Dataset

        with self._asking():
            items = self.client.retrieve_series_metadata(series.study, series.uid)
            return [Dataset.from_json(item, bulk_data_uri_handler=lambda *_: None) for item in items]

    def download(self, series: Series, folder: Path) -> list[Path]:
        """Downloads a series as it is stored, into a folder that appears whole or not at all.

        Returns:
            One file for each instance.

        Raises:
            ArchiveError: it does not answer, refuses, or sends fewer instances than it has.
        """
        temporary = folder.with_name(f".{uuid.uuid4().hex}-{folder.name}")
        temporary.mkdir(parents=True)
        try:
            with self._asking():
                count = 0
                for dataset in self.client.iter_series(
                    series.study, series.uid, media_types=(("application/dicom", "*"),)
                ):
                    dataset.save_as(temporary / f"{check_uid(dataset.SOPInstanceUID, self.url)}.dcm")
                    count += 1
            if count == 0 or count < series.instances:
                found = f"{count} of {series.instances} instances of series {series.uid}"
                mend = "Try again, or look into the log of the DICOM server."
                raise ArchiveError(self.url, found, "all of them", mend)
            shutil.rmtree(folder, ignore_errors=True)
            temporary.rename(folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return sorted(folder.glob("*.dcm"))

    def store(self, path: Path) -> None:
        """Stores one file.

        Raises:
            ArchiveError: it was not stored.
        """
        import pydicom

        dataset = pydicom.dcmread(path)
        with self._asking():
            answer = self.client.store_instances([dataset])
            failed = list(answer.get("FailedSOPSequence") or [])
            stored = {str(item.ReferencedSOPInstanceUID) for item in answer.get("ReferencedSOPSequence") or []}
        if failed or str(dataset.SOPInstanceUID) not in stored:
            reason = f" (failure reason {int(failed[0].get('FailureReason', 0)):04X}H)" if failed else ""
            mend = "Look into the log of the DICOM server: disk, rights, and whether it takes segmentations."
            raise ArchiveError(self.url, f"a file that it did not store{reason}", "a stored segmentation", mend)
