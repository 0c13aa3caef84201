"""What OmegaConf says of a value or a name that does not fit, in words for a user."""

import re
from dataclasses import fields, is_dataclass

from omegaconf.errors import OmegaConfBaseException

from tlbench.base.errors import suggest
from tlbench.config import schema


def explain(error: OmegaConfBaseException) -> str:
    """One line from an OmegaConf error: the setting's full name and what is wrong with it."""
    key = error.full_key or ""
    message = (error.msg or str(error)).strip().splitlines()[0]
    if match := re.search(r"[Mm]issing mandatory value: (\S+)", message):
        key = key or match[1]
        return f"{key} is not set. Give it a value: {key}=..."
    if re.match(r"Key '.*' not in '.*'", message):
        kind = error.object_type
        names = [field.name for field in fields(kind)] if is_dataclass(kind) else []
        return f"Unknown setting '{key}'. {suggest(key.rsplit('.', 1)[-1], names)}"
    if match := re.match(r"Value '(.*)' of type '.*' could not be converted to (\w+)", message):
        kinds = {"Integer": "a whole number", "Float": "a number", "Boolean": "true or false"}
        return f"{key}={match[1]} is not valid. Expected {kinds.get(match[2], match[2])}."
    if match := re.match(r"Invalid type assigned: .* subclass of (\w+)\. value: (.*)", message):
        group = getattr(schema, match[1], None)  # or a plain type, in an edited file
        parts = [f"{key}.{field.name}=..." for field in fields(group)] if group else []
        expected = (
            f"It is a group of settings: {', '.join(parts)}" if group else "Expected one value."
        )
        return f"{key}={match[2].lower()} is not valid. {expected}"
    if "is not a ListConfig" in message:
        return f"{key} holds no list. Expected one: '{key}=[...]'"
    if "to Dict[" in message:
        return f"{key} holds no names. Expected names with values: '{key}={{name:value}}'"
    return f"{key}: {message}" if key else message
