"""The description of a service for people and clients, made of the same table that validates requests."""

from __future__ import annotations

from typing import Any

from serving.endpoints import ENDPOINTS
from serving.schema import MAX_TEXT, Field

TOLD: dict[str, dict[str, Any]] = {
    "model": {"type": "string", "description": "tag of the bundle that answered"},
    "cold_start": {"type": "boolean", "description": "whether something about the request was unknown"},
    "cold_start_reason": {"type": ["string", "null"], "description": "what was unknown"},
    "answered_by": {"type": "string", "enum": ["model", "popularity", "base_rate"]},
    "features_as_of": {"type": "string", "format": "date-time", "description": "time at which features were read"},
    "feature_age_seconds": {"type": "number", "description": "read time less the newest knowledge of the state"},
    "feature_offset": {"type": "integer", "description": "log offset that the state has applied"},
}
"""JSON schemas of what every answer says about itself."""


def openapi(task: str) -> dict[str, Any]:
    """OpenAPI 3.1 document of a task's service."""
    endpoint = ENDPOINTS[task]
    refused = {
        "type": "object",
        "properties": {
            "error": {"type": "string"},
            "problems": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {name: {"type": "string"} for name in ("field", "rule", "message")},
                },
            },
        },
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": f"clicktrail-{task}", "version": "1", "description": endpoint.summary},
        "paths": {
            endpoint.path: {
                "post": {
                    "operationId": endpoint.path.strip("/"),
                    "summary": endpoint.summary,
                    "requestBody": {"required": True, "content": _json(_object(endpoint.fields))},
                    "responses": {
                        "200": {
                            "description": "the answer",
                            "content": _json({"type": "object", "properties": {**endpoint.answer, **TOLD}}),
                        },
                        "400": {"description": "a field breaks a rule", "content": _json(refused)},
                        "413": {"description": "the body is too large"},
                        "429": {"description": "too many requests in flight: try again a little later"},
                        "504": {"description": "the body did not come in time"},
                        "503": {"description": "the online state cannot be read now"},
                    },
                }
            }
        },
    }


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _object(fields: tuple[Field, ...]) -> dict[str, Any]:
    return {
        "type": "object",
        "additionalProperties": False,
        "required": [field.name for field in fields if field.required],
        "properties": {field.name: _property(field) for field in fields},
    }


_TEXT = {"type": "string", "minLength": 1, "maxLength": MAX_TEXT}


def _property(field: Field) -> dict[str, Any]:
    numbers = {"minimum": field.minimum, "maximum": field.maximum}
    entries = {"type": "array", "minItems": field.minimum, "maxItems": field.most}
    kinds: dict[str, dict[str, Any]] = {
        "text": _TEXT,
        "integer": {"type": "integer", **numbers},
        "number": {"type": "number", **numbers},
        "boolean": {"type": "boolean"},
        "time": {"type": "string", "format": "date-time"},
        "texts": {**entries, "uniqueItems": True, "items": _TEXT},
        "object": _object(field.fields),
        "objects": {**entries, "items": _object(field.fields)},
    }
    schema = {**kinds[field.kind], "description": field.meaning}
    if field.nullable:
        schema["type"] = [schema["type"], "null"]
    if field.default is not None:
        schema["default"] = field.default
    return schema
