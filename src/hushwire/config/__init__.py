"""The configuration: TOML text to frozen values, every setting documented where it stands, in `model`."""

from hushwire.config.model import Config, Dns, Esp, Host, Ike, PlaneChoice, Rule, Start
from hushwire.config.read import ConfigError, parse

__all__ = ["Config", "ConfigError", "Dns", "Esp", "Host", "Ike", "PlaneChoice", "Rule", "Start", "parse"]
