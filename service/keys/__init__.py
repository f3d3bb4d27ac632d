"""API keys: what a file says of them, and what each may still ask for."""

from service.keys.api_key import ApiKey
from service.keys.key_file import KeyRule, read_key_file, unnamed_rules

__all__ = ["ApiKey", "KeyRule", "read_key_file", "unnamed_rules"]
