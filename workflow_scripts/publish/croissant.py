"""A Croissant description (version 1.0) of a dataset: its files, and the columns of its tables.

Croissant is the vocabulary with which hubs and search engines read datasets (mlcommons.org/croissant).
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from workflow_scripts.core import tables
from workflow_scripts.core.meanings import MEANINGS

CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "dct": "http://purl.org/dc/terms/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    **{
        name: f"cr:{name}"
        for name in [
            "citeAs",
            "column",
            "extract",
            "field",
            "fileObject",
            "fileProperty",
            "fileSet",
            "format",
            "includes",
            "isLiveDataset",
            "jsonPath",
            "key",
            "md5",
            "parentField",
            "path",
            "recordSet",
            "references",
            "regex",
            "repeated",
            "replace",
            "separator",
            "source",
            "subField",
            "transform",
        ]
    },
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
}
"""Terms of the vocabulary, as its specification gives them."""


def describe(
    name: str,
    *,
    facts: Mapping[str, Any],
    folder: Path,
    described: Mapping[str, str],
    others: Sequence[str] = (),
) -> dict[str, Any]:
    """Describe a published folder.

    Parameters
    ----------
    name : of the dataset
    facts : description, license, citation, date, version, keywords, and url where there is one
    folder : where its files lie
    described : file -> table of `core.tables`; each becomes a record set
    others : further files

    Returns
    -------
    JSON-LD
    """
    document = {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": name,
        "description": facts["description"],
        "license": facts["license"],
        "citeAs": facts["citation"],
        "datePublished": facts["date"],
        "version": facts["version"],
        "keywords": list(facts["keywords"]),
        "distribution": [_file(folder, file) for file in [*described, *others]],
        "recordSet": [_records(file, table) for file, table in described.items()],
    }
    return document | ({"url": facts["url"]} if facts.get("url") else {})


def _file(folder: Path, file: str) -> dict[str, str]:
    with (folder / file).open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    kinds = {".parquet": "application/x-parquet", ".json": "application/json"}
    return {
        "@type": "cr:FileObject",
        "@id": file,
        "name": file,
        "contentUrl": file,
        "contentSize": f"{(folder / file).stat().st_size} B",
        "encodingFormat": kinds[Path(file).suffix],
        "sha256": digest,
    }


def _records(file: str, table: str) -> dict[str, Any]:
    columns = {name: kind for name, kind in tables.COLUMNS[table].items() if not pa.types.is_binary(kind)}
    return {
        "@type": "cr:RecordSet",
        "@id": table,
        "name": table,
        "description": f"Rows of {file}.",
        "field": [
            {
                "@type": "cr:Field",
                "@id": f"{table}/{name}",
                "name": f"{table}/{name}",
                "description": MEANINGS.get(name, name),
                "dataType": _data_type(kind),
                "source": {"fileObject": {"@id": file}, "extract": {"column": name}},
            }
            for name, kind in columns.items()
        ],
    }


def _data_type(kind: pa.DataType) -> str:
    for is_kind, word in (
        (pa.types.is_string, "sc:Text"),
        (pa.types.is_boolean, "sc:Boolean"),
        (pa.types.is_floating, "sc:Float"),
        (pa.types.is_integer, "sc:Integer"),
        (pa.types.is_timestamp, "sc:DateTime"),
    ):
        if is_kind(kind):
            return word
    raise ValueError(f"no Croissant type is known for {kind}")
