"""Find the name, key and price of the model of an expert or judge, and prepare litellm to call it."""

from __future__ import annotations

import os
from typing import Any
from urllib.parse import urlsplit

from aes_r1.aescot.budget import Price
from aes_r1.settings import ChatSettings, InputError


def litellm_name(settings: ChatSettings) -> str:
    """Return the model's name for litellm.

    A model behind api_base is called by the OpenAI protocol unless its name begins with a provider of litellm.
    """
    model = settings.model or ""
    if settings.api_base and model.split("/")[0] not in litellm_library().provider_list:
        return f"openai/{model}"
    return model


def key_of(settings: ChatSettings) -> str | None:
    """Return the API key from the environment; None where litellm finds it itself.

    "none" stands for no key, which a server behind api_base may not need. Raises InputError where the key is missing.
    """
    group, name = settings.group, settings.api_key_env
    if name is not None:
        if not os.environ.get(name):
            raise InputError(f"{group}.api_key_env={name}: this environment variable is not set; set it to the key")
        return os.environ[name]
    if settings.api_base:
        return os.environ.get("OPENAI_API_KEY") or "none"
    missing = litellm_library().validate_environment(litellm_name(settings))["missing_keys"]
    if missing:
        raise InputError(
            f"{group}.model={settings.model}: set {' and '.join(missing)} in the environment, or {group}.api_base"
        )
    return None


def price_of(settings: ChatSettings) -> Price | None:
    """Return the price that the settings give, else that of litellm's list, else None."""
    if settings.input_usd_per_million is not None and settings.output_usd_per_million is not None:
        return Price(settings.input_usd_per_million / 1e6, settings.output_usd_per_million / 1e6)
    listed = None if settings.api_base else litellm_library().model_cost.get(litellm_name(settings))
    if not listed or listed.get("input_cost_per_token") is None:
        return None
    return Price(listed["input_cost_per_token"], listed.get("output_cost_per_token") or 0.0)


def affordable_price(settings: ChatSettings) -> Price | None:
    """Return the price, or None where it is unknown; InputError where it is unknown and a price ceiling is set."""
    price, group = price_of(settings), settings.group
    if settings.max_usd is not None and price is None:
        raise InputError(
            f"{group}.max_usd={settings.max_usd}: the price of {settings.model} is not known; give "
            f"{group}.input_usd_per_million and {group}.output_usd_per_million (0 for a server of your own)"
        )
    return price


def without_keys(text: str, settings: ChatSettings) -> str:
    """Return `text` without any secret of the environment that a server may have repeated."""
    for name, value in os.environ.items():
        secret = name == settings.api_key_env or name.endswith(("_KEY", "_TOKEN", "_SECRET"))
        if secret and len(value) >= 8:
            text = text.replace(value, f"${name}")
    return text


def bypass_proxy_for_loopback(api_base: str | None) -> None:
    """Bypass the environment's proxy for a server on this machine; a proxy would look for it on its own machine."""
    host = urlsplit(api_base or "").hostname
    if host is None or not (host == "localhost" or host.startswith("127.") or host == "::1"):
        return
    for name in ("NO_PROXY", "no_proxy"):
        hosts = [part for part in os.environ.get(name, "").split(",") if part]
        if host not in hosts and "*" not in hosts:
            os.environ[name] = ",".join([*hosts, host])


def check_certificates() -> None:
    """Raise InputError where the environment names certificate files that do not exist.

    The libraries would fail with a traceback.
    """
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"):
        path = os.environ.get(name)
        if path and not os.path.exists(path):
            raise InputError(f"{name}={path}: there is no such file; unset it, or give the file of certificates")


def litellm_library() -> Any:
    """Import litellm, set up so that it downloads no price list, sends no telemetry and prints no advice."""
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # else it fetches a price list on import
    import litellm

    litellm.suppress_debug_info = True
    litellm.telemetry = False
    litellm.drop_params = True  # parameters that a model does not know, such as temperature, are left out
    return litellm
