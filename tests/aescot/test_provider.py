"""Prices and keys of a model that a recipe names."""

from __future__ import annotations

import pytest

from aes_r1.aescot.provider import affordable_price, key_of, price_of, without_keys
from aes_r1.settings import ExpertSettings, InputError, JudgeSettings


def openai(**values):
    return ExpertSettings(**{"name": "openai", "model": "gpt-4.1", **values})


@pytest.mark.slow
def test_prices_come_from_the_settings_or_the_list_and_a_ceiling_needs_one():
    assert price_of(openai()).completion > price_of(openai()).prompt > 0
    assert price_of(openai(input_usd_per_million=2.0, output_usd_per_million=8.0)).of(10**6, 10**6) == pytest.approx(10)
    assert price_of(openai(api_base="http://127.0.0.1:1/v1")) is None  # the price of a private server is unknown
    with pytest.raises(InputError, match=r"expert.input_usd_per_million and expert.output_usd_per_million"):
        affordable_price(openai(model="nobody/knows", max_usd=1.0))
    with pytest.raises(InputError, match="both prices"):
        openai(input_usd_per_million=2.0)


def test_keys_come_from_the_environment_and_are_named_never_shown(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(InputError, match="OPENAI_API_KEY"):
        key_of(openai())
    with pytest.raises(InputError, match="MINE: this environment variable is not set"):
        key_of(openai(api_key_env="MINE"))
    monkeypatch.setenv("MINE", "sk-0123456789")
    settings = openai(api_key_env="MINE")
    assert key_of(settings) == "sk-0123456789"
    assert without_keys("bad key sk-0123456789", settings) == "bad key $MINE"
    for wrong in ({"api_key_env": "sk-0123456789"}, {"api_base": "https://me:sk-0123456789@host/v1"}):
        with pytest.raises(InputError) as raised:
            JudgeSettings(name="openai", model="m", **wrong)
        assert "sk-0123456789" not in str(raised.value)
