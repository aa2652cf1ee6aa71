"""Validates JSON by the schemas of docs/schema. Usage: schema.py DIRECTORY

Reads lines `[NAME, DOCUMENT]` and prints for each whether the document conforms to NAME.schema.json. Fails if a schema is
not one of draft 2020-12.
"""

import json
import pathlib
import sys

from jsonschema import Draft202012Validator
from referencing import Registry, Resource

schemas = {path.name: json.loads(path.read_text()) for path in pathlib.Path(sys.argv[1]).glob("*.schema.json")}
for schema in schemas.values():
    Draft202012Validator.check_schema(schema)
registry = Registry().with_resources((name, Resource.from_contents(schema)) for name, schema in schemas.items())
validators = {name: Draft202012Validator({"$ref": name}, registry=registry) for name in schemas}
for line in sys.stdin:
    name, document = json.loads(line)
    print(json.dumps(validators[f"{name}.schema.json"].is_valid(document)))
