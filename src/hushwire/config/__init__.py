"""The configuration: TOML text to frozen values, every setting documented where it stands, in `model`."""

from hushwire.config.model import Addressing, Anonymous, Config, Dns, Esp, Group, Host, Ike, PlaneChoice, Rule, Start
from hushwire.config.read import ConfigError, parse

__all__ = [
    "Addressing", "Anonymous", "Config", "ConfigError", "Dns", "Esp", "Group", "Host", "Ike", "PlaneChoice", "Rule",
    "Start", "parse",
]  # fmt: skip
