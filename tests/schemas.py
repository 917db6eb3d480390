"""What programs are told, read as they read it, and held against the schemas of docs/schema."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from referencing import Registry, Resource

FOLDER = Path(__file__).parents[1] / "docs" / "schema"
SUMMARY, CHECK, REPORT_LINE = "summary.schema.json", "check.schema.json", "report-line.schema.json"
CONTROL = "control.schema.json"


@cache
def schema(name: str) -> Any:
    """Return a schema."""
    return json.loads((FOLDER / name).read_text(encoding="utf-8"))


@cache
def validator(name: str) -> Draft202012Validator:
    """Return what holds a value against a schema, which may refer to the schema of the summary."""
    registry = Registry().with_resource(SUMMARY, Resource.from_contents(schema(SUMMARY)))
    return Draft202012Validator(schema(name), registry=registry)


def read_document(text: str | bytes) -> Any:
    """Return a JSON document; raise ValidationError where it is not as its schema says."""
    document = json.loads(text)
    validator(CHECK if document["command"] == "check" else SUMMARY).validate(document)
    return document


def read_answer(text: str | bytes) -> Any:
    """Return what was answered at a control socket; raise ValidationError where it is not as its schema says."""
    document = json.loads(text)
    validator(CONTROL).validate(document)
    return document


def read_report(text: str) -> list[Any]:
    """Return the lines of a report; raise ValidationError where one is not as its schema says."""
    lines = [json.loads(line) for line in text.split("\n") if line]
    for line in lines:
        validator(REPORT_LINE).validate(line)
    return lines
