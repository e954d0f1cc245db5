"""Workbooks and documents read again, as far as tests need it."""

from __future__ import annotations

import base64
import io
import re
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any
from xml.etree import ElementTree

NAMES = {"s": "http://schemas.openxmlformats.org/spreadsheetml/2006/main"}


def full_file(**_: object) -> IO[bytes]:
    """Open a file on a disk that is full, in place of a temporary one."""
    return Path("/dev/full").open("w+b")


def read_sheet(workbook: bytes, number: int) -> list[list[Any]]:
    """Return the cells of a sheet: numbers (times are numbers, too), texts, and None. Fails for a formula."""
    with zipfile.ZipFile(io.BytesIO(workbook)) as archive:
        sheet = ElementTree.fromstring(archive.read(f"xl/worksheets/sheet{number}.xml"))
        shared: list[str] = []
        if "xl/sharedStrings.xml" in archive.namelist():
            table = ElementTree.fromstring(archive.read("xl/sharedStrings.xml"))
            shared = ["".join(one.itertext()) for one in table]
    assert sheet.find(".//s:f", NAMES) is None
    return [_cells(row, shared) for row in sheet.iterfind(".//s:row", NAMES)]


def _cells(row: ElementTree.Element, shared: list[str]) -> list[Any]:
    cells: list[Any] = []
    for cell in row.iterfind("s:c", NAMES):
        letters = re.sub(r"\d", "", cell.attrib["r"])
        place = sum((ord(letter) - 64) * 26**power for power, letter in enumerate(reversed(letters))) - 1
        cells += [None] * (place - len(cells))
        value = cell.find("s:v", NAMES)
        if cell.get("t") == "inlineStr":
            cells.append("".join(cell.itertext()))
        elif cell.get("t") == "s":
            assert value is not None
            cells.append(shared[int(value.text or "")])
        else:
            cells.append(None if value is None else float(value.text or "nan"))
    return cells


def charts(workbook: bytes) -> int:
    with zipfile.ZipFile(io.BytesIO(workbook)) as archive:
        return sum(name.startswith("xl/charts/chart") for name in archive.namelist())


def read_pages(document: bytes) -> list[list[str]]:
    """Return the texts of each page of a PDF in the order in which they are drawn."""
    pages = []
    for stream in re.findall(rb"stream\r?\n(.*?)endstream", document, re.DOTALL):
        content = zlib.decompress(base64.a85decode(b"<~" + stream.strip(), adobe=True))
        drawn = re.findall(rb"\(((?:[^()\\]|\\.)*)\) Tj", content)
        pages.append([re.sub(rb"\\(.)", rb"\1", text).decode("latin-1") for text in drawn])
    return pages
